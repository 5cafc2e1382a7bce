"""The report's tables: CSV in full precision for programs; Markdown and other tables rounded for people."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunelib.markdown import escaped
from prunelib.reporting.digits import percent, percent_at_most, percent_reached, plus_minus, significant
from prunelib.reporting.draws import draws_differ
from prunelib.reporting.notes import notes
from prunelib.reporting.report import DASH, Record, Report, as_text
from prunelib.reporting.rows import Row, grouped, rows_of, title
from prunelib.reporting.significance import Best, leaders

_NBSP = "\N{NO-BREAK SPACE}"
_PERCENT = 0.01
COST_COLUMNS = ("seconds", "step_seconds", "peak_bytes", "machine")
_MAIN = ("relative_error", "perplexity_", "seconds")


@dataclass(frozen=True)
class Entry:
    """One entry of a table: its text, and whether it is the best of its group."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Group:
    """Comparable rows; each starts with the names of its warm start and refiner. ``of`` is what each row shows."""

    title: str
    dense: bool
    rows: list[list[Entry]]
    of: Sequence[Row]


@dataclass(frozen=True)
class Table:
    """The results of one model."""

    model: str
    headings: list[str]
    groups: list[Group]


@dataclass(frozen=True)
class _Column:
    """A column of numbers; ``unit`` is the unit of the numbers shown: 0.01 for percent."""

    heading: str
    key: str
    show: Callable[[float], str]
    best: Best | None = None
    unit: float = 1

    def entries(self, group: Sequence[Row]) -> list[Entry]:
        """Return a group's entries; the best is one that leads by more than the standard error."""
        best = leaders(group, self.key, self.best, self.show) if self.best else []
        return [self._entry(row, best=row in best) for row in group]

    def _entry(self, row: Row, *, best: bool) -> Entry:
        if self.key not in row.values:
            return Entry(DASH)
        text, spread = self.show(row.values[self.key]), row.spreads.get(self.key)
        return Entry(text if spread is None else plus_minus(text, spread / self.unit), best)


def results_csv(report: Report) -> str:
    """Return results.csv, one row per cell and seed; a column's name never depends on other cells' values."""
    return _csv([{key: value for key, value in cell.items() if key not in COST_COLUMNS} for cell in report.cells])


def layers_csv(report: Report) -> str:
    """Return layers.csv, one row per pruned matrix of each cell and seed."""
    return _csv(report.layers)


def timing_csv(report: Report) -> str:
    """Return timing.csv, one row per pruned cell and seed: time and memory of refinement, and the machine."""
    pruned = [cell for cell in report.cells if cell["pattern"] is not None]
    return _csv([{"cell": cell["cell"], **{key: cell.get(key) for key in COST_COLUMNS}} for cell in pruned])


def metrics_json(report: Report) -> str:
    """Return metrics.json, for ``dvc metrics``: by cell its error, perplexities and accuracies, in five digits."""
    columns = [
        "relative_error",
        "block_error",
        *(f"perplexity_{text}" for text in report.texts),
        *(f"acc_{task}" for task in report.tasks),
    ]
    compared = {
        cell["cell"]: {name: float(f"{cell[name]:.5g}") for name in columns if cell.get(name) is not None}
        for cell in report.cells
    }
    return json.dumps(compared, indent=1) + "\n"


def _csv(records: Sequence[Record]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: as_text(value) if isinstance(value, bool) else value for key, value in row.items()} for row in records
    )
    return stream.getvalue()


def results_tables(report: Report, costs: bool) -> list[Table]:
    """Return one table per model, aggregated over seeds; columns in which no row has a value are omitted.

    Where rows are of different numbers of seeds, a column has this number.
    ``costs`` adds time and memory, which differ from run to run.
    """
    return _tables(report, [*_columns(report), *(_COSTS if costs else ())])


def main_tables(report: Report) -> list[Table]:
    """Return the tables of :func:`results_tables` with the columns that fit a terminal: error, perplexities, time."""
    return _tables(report, [column for column in (*_columns(report), *_COSTS) if column.key.startswith(_MAIN)])


def _tables(report: Report, columns: Sequence[_Column]) -> list[Table]:
    known = rows_of(report)
    columns = [*([_DRAWS] if draws_differ(known) else []), *columns]
    return [
        _table(report, columns, model, [row for row in known if row.cell.model == model]) for model in report.models
    ]


def _table(report: Report, columns: Sequence[_Column], model: str, members: Sequence[Row]) -> Table:
    columns = [column for column in columns if any(column.key in row.values for row in members)]
    return Table(
        model=report.label("models", model),
        headings=["Warm start", "Refiner", *(column.heading for column in columns)],
        groups=[_group(report, columns, group) for group in grouped(members)],
    )


def _group(report: Report, columns: Sequence[_Column], group: Sequence[Row]) -> Group:
    figures = zip(*(column.entries(group) for column in columns), strict=True)
    names = [
        [Entry(report.label("warmstarts", row.cell.warmstart)), Entry(report.label("refiners", row.cell.refiner))]
        for row in group
    ]
    lines = [[*name, *line] for name, line in zip(names, figures, strict=True)]
    return Group(title(report, group), group[0].dense, lines, group)


def _columns(report: Report) -> list[_Column]:
    return [
        _Column("Sparsity, %", "sparsity", percent),
        _Column(f"Relative error, %{_NBSP}↓", "relative_error", lambda e: significant(100 * e), min, _PERCENT),
        _Column("Error reduction, %", "error_reduction", percent, unit=_PERCENT),
        _Column(f"Block error, %{_NBSP}↓", "block_error", lambda e: significant(100 * e), min, _PERCENT),
        _Column(f"Error / Wanda's{_NBSP}↓", "error_vs_wanda", significant, min),
        _Column("Optimality gap, % (at most)", "optimality_gap", percent_at_most, unit=_PERCENT),
        *(
            _Column(
                f"Perplexity {report.label('texts', text)}{_NBSP}↓",
                f"perplexity_{text}",
                lambda value: significant(value, 4),
                min,
            )
            for text in report.texts
        ),
        *(
            _Column(f"{report.label('tasks', task)}, %{_NBSP}↑", f"acc_{task}", percent, max, _PERCENT)
            for task in report.tasks
        ),
        _Column("Swaps per row", "swaps_per_row", significant),
        _Column("Rows at optimum, %", "optimal_share", percent_reached),
    ]


_DRAWS = _Column("Draws", "draws", lambda count: f"{count:.0f}")
_COSTS = (
    _Column("Time, s", "seconds", lambda seconds: significant(seconds, 2)),
    _Column("Memory, MB", "peak_bytes", lambda size: f"{size / 1e6:.0f}"),
)


def results_markdown(report: Report) -> str:
    """Return the results tables with their notes as Markdown, for a README or a pull request."""
    tables = [_markdown(table) for table in results_tables(report, costs=False)]
    origin = [f"- {escaped(heading)}: {escaped(text)}" for heading, text in report.provenance.items()]
    explained = [f"- {escaped(note)}" for note in notes(report)]
    parts = ["# Results", *tables, "\n".join(explained), "\n".join(origin)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(table: Table) -> str:
    headings = ["Pattern", *map(escaped, table.headings)]
    lines = [headings, ["---", "---", "---", *(["---:"] * (len(table.headings) - 2))]]
    for group in table.groups:
        for index, row in enumerate(group.rows):
            lines.append([escaped(group.title) if index == 0 else "", *map(_emphasised, row)])
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"## {escaped(table.model)}\n\n{body}"


def _emphasised(entry: Entry) -> str:
    return f"**{escaped(entry.text)}**" if entry.best else escaped(entry.text)
