"""The rows of the report's tables: means and spreads over seeds, one row per combination of methods."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from prunelib.cell import Cell
from prunelib.reporting.report import Record, Report

_SPREADING = ("relative_error", "error_reduction", "block_error", "error_vs_wanda", "optimality_gap", "perplexity_")
_COUNTED = ("swaps_per_row", "optimal_share")
ACCURACY, _STANDARD_ERROR = "acc_", "acc_stderr_"


@dataclass(frozen=True)
class Row:
    """One (model, pattern, warm start, refiner), or a dense model.

    Attributes
    ----------
    records
        The cell of each seed.
    values
        Known values by column of results.csv and timing.csv: the mean over seeds; of ``peak_bytes`` the maximum. Of
        a pruned model, ``draws`` is the number of seeds.
    spreads
        The numbers after ±: the sample standard deviation over at least two seeds; for accuracies the mean of the
        seeds' standard errors, because all seeds share the items.
    """

    records: Sequence[Record]
    values: Mapping[str, float]
    spreads: Mapping[str, float]

    @property
    def cell(self) -> Cell:
        """The row's names, without a seed."""
        return _without_seed(self.records[0])

    @property
    def dense(self) -> bool:
        """Whether this is the unpruned model."""
        return self.cell.pattern is None

    @property
    def draws(self) -> int:
        """Number of draws of the calibration tokens; 0 for the dense model."""
        return 0 if self.dense else len(self.records)

    def draws_of(self, key: str) -> int:
        """Return the number of draws that a column is known for, whose mean is shown; 0 for the dense model."""
        return 0 if self.dense else len(_numbers(self.records, key))

    @property
    def refined(self) -> bool:
        """Whether a refiner ran, even without changing a mask: it counted swaps, proved rows or changed the error."""
        counted = any(self.values.get(key) is not None for key in _COUNTED)
        return counted or self.reconstructed or bool(self.values.get("error_reduction"))

    @property
    def updated(self) -> bool:
        """Whether kept weights were updated."""
        return any(record["updated"] for record in self.records)

    @property
    def reconstructed(self) -> bool:
        """Whether blocks were reconstructed."""
        return "block_error" in self.values

    def perplexity(self, text: str) -> float | None:
        """Return the mean perplexity on a text; None if it was not measured."""
        return self.values.get(f"perplexity_{text}")


def rows_of(report: Report) -> list[Row]:
    """Return one row per combination, in order of first appearance."""
    found: dict[Cell, list[Record]] = {}
    for record in report.cells:
        found.setdefault(_without_seed(record), []).append(record)
    return [_row(members) for members in found.values()]


def main_text(report: Report) -> str:
    """Return the first text that any perplexity was measured on; empty if there is none."""
    measured = (text for text in report.texts if any(cell[f"perplexity_{text}"] is not None for cell in report.cells))
    return next(measured, "")


def _without_seed(record: Record) -> Cell:
    return Cell(**{name: record[name] for name in Cell.model_fields}).model_copy(update={"seed": None})


def _row(records: Sequence[Record]) -> Row:
    known = {key: numbers for key in records[0] if (numbers := _numbers(records, key))}
    values = {key: max(of) if key == "peak_bytes" else fmean(of) for key, of in known.items()}
    draws = {} if records[0]["pattern"] is None else {"draws": float(len(records))}
    deviations = {key: stdev(of) for key, of in known.items() if key.startswith(_SPREADING) and len(of) > 1}
    errors = {
        key.replace(_STANDARD_ERROR, ACCURACY, 1): error
        for key, error in values.items()
        if key.startswith(_STANDARD_ERROR)
    }
    return Row(records, values | draws, deviations | errors)


def _numbers(records: Sequence[Record], key: str) -> list[float]:
    values = (record[key] for record in records)
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Group comparable rows: of one model and pattern masks alone, then updated weights, then reconstructed blocks."""
    found: dict[tuple[str, str | None], tuple[list[Row], list[Row], list[Row]]] = {}
    for row in rows:
        groups = found.setdefault((row.cell.model, row.cell.pattern), ([], [], []))
        groups[2 if row.reconstructed else int(row.updated)].append(row)
    return [group for groups in found.values() for group in groups if group]


def title(report: Report, group: Sequence[Row]) -> str:
    """Return the title of a group's rows: ``dense``, ``60% per row``, and what was changed in addition to the mask."""
    if group[0].dense:
        return "dense"
    pattern = report.label("patterns", group[0].cell.pattern)
    if group[0].reconstructed:
        return f"{pattern}, blocks reconstructed"
    return f"{pattern}, updated weights" if group[0].updated else pattern
