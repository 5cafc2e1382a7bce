"""Names of rows and groups in figures and sentences, from the labels of params.yaml."""

from collections import defaultdict
from collections.abc import Sequence

from prunelib.reporting.report import Report
from prunelib.reporting.rows import Row, grouped, title


def heading(report: Report, model: str, text: str) -> str:
    """Return the title of a group's panel; it names the model only if the report has several."""
    named = report.label("models", model)
    return f"{named}: {text}" if len(report.models) > 1 else text


def group_heading(report: Report, group: Sequence[Row]) -> str:
    """Return the heading of a group of comparable rows."""
    return heading(report, group[0].cell.model, title(report, group))


def method_name(report: Report, row: Row) -> str:
    """Return ``Wanda`` for a mask that is not refined, else ``Wanda + SparseSwaps``."""
    start = report.label("warmstarts", row.cell.warmstart)
    return f"{start} + {report.label('refiners', row.cell.refiner)}" if row.refined else start


def short_names(report: Report, rows: Sequence[Row]) -> list[str]:
    """Return the names of rows of one pattern: the refiner alone where it has a single warm start among them."""
    starts: dict[str | None, set[str | None]] = defaultdict(set)
    for row in rows:
        starts[row.cell.refiner].add(row.cell.warmstart)
    return [
        report.label("refiners", row.cell.refiner)
        if row.refined and len(starts[row.cell.refiner]) == 1
        else method_name(report, row)
        for row in rows
    ]


def by_pattern(rows: Sequence[Row]) -> list[list[Row]]:
    """Group rows of one model and pattern, with updated weights among them."""
    found: dict[tuple[str, str | None], list[Row]] = {}
    for group in grouped(rows):
        found.setdefault((group[0].cell.model, group[0].cell.pattern), []).extend(group)
    return list(found.values())
