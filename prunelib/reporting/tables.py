"""The report's tables: CSV in full precision for programs, Markdown and its like in sensible digits for people."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prunelib.reporting.records import DASH, CellReport, Record, Report, cell_record, layer_record

Best = Callable[[Iterable[float]], float]
_NBSP = "\N{NO-BREAK SPACE}"

_SPARSITY_NOTE = (
    "Sparsity: share of zeros among the matrix weights inside the decoder blocks. "
    "Embeddings, norms and the output head stay dense."
)
_ERROR_NOTE = (
    "Relative error: ‖WX − (M∘W)X‖² / ‖WX‖² on the calibration tokens, mean over layers. "
    "Error reduction: 1 − L(refined mask) / L(its own warm start), mean over layers."
)
_BOLD_NOTE = (
    "Bold: the best of its pattern, in the columns with an arrow; accuracies that differ by less than their standard "
    "errors are as good as equal. Error reduction has no arrow, because a worse warm start leaves more to reduce."
)
_COST_NOTE = (
    "Rows at optimum: share of rows in which no single swap lowers the error, rounded down. "
    "Time: of the refiner alone. Memory: the peak of its process."
)


@dataclass(frozen=True)
class Entry:
    """A table's cell: its text, and whether it is the best of its group."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Group:
    """The rows of one pattern, or the dense model's; each starts with the names of its warm start and refiner."""

    title: str
    dense: bool
    rows: list[list[Entry]]


@dataclass(frozen=True)
class Table:
    """The results of one model."""

    model: str
    headings: list[str]
    groups: list[Group]


@dataclass(frozen=True)
class _Column:
    heading: str
    key: str
    show: Callable[[float], str]
    best: Best | None = None
    stderr: str | None = None

    def entries(self, records: Sequence[Record]) -> list[Entry]:
        """A group's entries; with several values, all that read the same as the best one are best."""
        known = [value for record in records if (value := _number(record[self.key])) is not None]
        best = self.show(self.best(known)) if self.best and len(known) > 1 else None
        return [self._entry(record, best) for record in records]

    def _entry(self, record: Record, best: str | None) -> Entry:
        keys = [self.key, self.stderr] if self.stderr else [self.key]
        known = [self.show(value) for key in keys if (value := _number(record[key])) is not None]
        return Entry(" ± ".join(known) or DASH, best=bool(known) and known[0] == best)


def _number(value: str | float | None) -> float | None:
    return None if isinstance(value, str) else value


def significant(value: float, digits: int = 3) -> str:
    """A number in at least ``digits`` significant digits, all digits before the point kept: 0.0931, 25.9, 3486."""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, decimals)}f}" if -4 <= decimals <= 8 else f"{value:.{digits - 1}e}"


def percent(fraction: float) -> str:
    """A fraction in percent with one decimal, without the sign: 46.2."""
    return f"{100 * fraction:z.1f}"


def percent_reached(fraction: float) -> str:
    """As :func:`percent`, rounded down: 100.0 means every one."""
    return f"{math.floor(1000 * fraction) / 10:.1f}"


def results_csv(report: Report) -> str:
    """One row a cell; a column's name never depends on other cells' values."""
    return _csv([cell_record(report, cell) for cell in report.cells])


def layers_csv(report: Report) -> str:
    """One row for each pruned matrix of each cell."""
    return _csv([layer_record(cell, layer) for cell in report.cells for layer in cell.layers])


def _csv(records: Sequence[Record]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, records[0] if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def results_tables(report: Report) -> list[Table]:
    """One table a model; columns in which none of its cells has a value are left out."""
    return [_table(report, model) for model in report.models]


def _table(report: Report, model: str) -> Table:
    groups = report.groups(model)
    records = [cell_record(report, cell) for cells in groups.values() for cell in cells]
    columns = [column for column in _columns(report) if any(record[column.key] is not None for record in records)]
    return Table(
        model=report.label(model),
        headings=["Warm start", "Refiner", *(column.heading for column in columns)],
        groups=[_group(report, columns, pattern, cells) for pattern, cells in groups.items()],
    )


def _group(report: Report, columns: Sequence[_Column], pattern: str | None, cells: Sequence[CellReport]) -> Group:
    records = [cell_record(report, cell) for cell in cells]
    figures = zip(*(column.entries(records) for column in columns), strict=True)
    names = [[Entry(report.label(cell.cell.warmstart)), Entry(report.label(cell.cell.refiner))] for cell in cells]
    rows = [[*name, *row] for name, row in zip(names, figures, strict=True)]
    return Group(report.label(pattern) if pattern else "dense", pattern is None, rows)


def _columns(report: Report) -> list[_Column]:
    return [
        _Column("Sparsity, %", "sparsity", percent),
        _Column(f"Relative error, %{_NBSP}↓", "relative_error", lambda error: significant(100 * error), min),
        _Column("Error reduction, %", "error_reduction", percent),
        *(
            _Column(f"Perplexity {text}{_NBSP}↓", f"perplexity_{text}", lambda value: significant(value, 4), min)
            for text in report.texts
        ),
        *(_Column(f"{task}, %{_NBSP}↑", f"acc_{task}", percent, max, f"acc_stderr_{task}") for task in report.tasks),
        _Column("Swaps per row", "swaps_per_row", significant),
        _Column("Rows at optimum, %", "optimal_share", percent_reached),
        _Column("Time, s", "seconds", lambda seconds: significant(seconds, 2)),
        _Column("Memory, MB", "peak_bytes", lambda size: f"{size / 1e6:.0f}"),
    ]


def notes(report: Report) -> list[str]:
    """What a reader must know to read the tables, a sentence or two each."""
    perplexities = [f"Perplexity {text}: {windows}." for text in report.texts if (windows := _windows(report, text))]
    tasks = ", ".join(f"{task} ({items})" for task in report.tasks if (items := _items(report, task)))
    accuracies = [f"Accuracy: zero-shot, ± one standard error; {tasks}."] if tasks else []
    return [_SPARSITY_NOTE + _covered(report), _ERROR_NOTE, *perplexities, *accuracies, _BOLD_NOTE, _COST_NOTE]


def _covered(report: Report) -> str:
    """How much of the blocks is pruned at all, where that is not everything."""
    partial = {cell.cell.model: cell.result.coverage for cell in report.cells if cell.result.coverage < 1}
    shares = ", ".join(f"{percent_reached(share)}% in {report.label(model)}" for model, share in partial.items())
    return f" Only linear layers are pruned and counted: of the blocks' matrix weights {shares}." if shares else ""


def _windows(report: Report, text: str) -> str:
    results = report.perplexities(text)
    tokens, windows = {result.tokens for result in results}, {result.windows for result in results}
    held_out = f"{_either(tokens)} predicted tokens in {_either(windows)} windows of held-out text"
    return f"exp of the mean loss over {held_out}" if results else ""


def _items(report: Report, task: str) -> str:
    results = report.accuracies(task)
    versions = " or ".join(sorted({result.version for result in results}))
    return f"version {versions}, {_either({result.items for result in results})} items" if results else ""


def _either(counts: set[int]) -> str:
    return " or ".join(f"{count:,}" for count in sorted(counts))


def results_markdown(report: Report) -> str:
    """The results tables with their notes, for a README or a pull request."""
    tables = [_markdown(table) for table in results_tables(report)]
    origin = [f"- {heading}: {text}" for heading, text in report.provenance.items()]
    parts = ["# Results", *tables, "\n".join(f"- {note}" for note in notes(report)), "\n".join(origin)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(table: Table) -> str:
    lines = [["Pattern", *table.headings], ["---", "---", "---", *(["---:"] * (len(table.headings) - 2))]]
    for group in table.groups:
        for index, row in enumerate(group.rows):
            lines.append([group.title if index == 0 else "", *(_emphasised(entry) for entry in row)])
    body = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
    return f"## {table.model}\n\n{body}"


def _emphasised(entry: Entry) -> str:
    return f"**{entry.text}**" if entry.best else entry.text
