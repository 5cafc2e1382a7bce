"""Which rows of a report are means over several draws of the calibration tokens, and over how many."""

from collections import Counter
from collections.abc import Sequence

from prunelib.reporting.records import Report
from prunelib.reporting.seeds import Row, title

_NAMED = 12  # rows in a sentence


def draws_differ(rows: Sequence[Row]) -> bool:
    """Return whether some rows of pruned models are of more draws than others."""
    return len(_counts(rows)) > 1


def means(report: Report, rows: Sequence[Row]) -> str:
    """Return a sentence on which values of some rows are means over draws; empty if all are of a single draw.

    If rows differ, it states the number of draws of most rows and names the others.
    """
    counts = _counts(rows)
    if not counts or set(counts) == {1}:
        return ""
    if len(counts) == 1:
        return f"Every value of a pruned model is the mean over {next(iter(counts))} draws of calibration tokens."
    (usual, _), *others = counts.most_common()
    named = (f"{_drawn(count)} for {_names(report, rows, count)}" for count, _ in sorted(others))
    most = f"The value of a pruned model is the mean over its draws of calibration tokens: {_drawn(usual)}"
    return f"{most}, except {'; '.join(named)}."


def _counts(rows: Sequence[Row]) -> Counter[int]:
    """Return how many rows of pruned models are of how many draws."""
    return Counter(len(row.cells) for row in rows if not row.dense)


def _drawn(count: int) -> str:
    return "one draw" if count == 1 else f"{count} draws"


def _names(report: Report, rows: Sequence[Row], count: int) -> str:
    names = [_name(report, row) for row in rows if not row.dense and len(row.cells) == count]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _name(report: Report, row: Row) -> str:
    model = f"{report.label('models', row.cell.model)} " if len(report.models) > 1 else ""
    method = f"{report.label('warmstarts', row.cell.warmstart)} + {report.label('refiners', row.cell.refiner)}"
    return f"{model}{title(report, [row])} {method}"
