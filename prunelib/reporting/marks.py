"""The marks of rows in figures: a shape and a colour for what a method changes, and a tooltip with its values."""

from markupsafe import escape

from prunelib.reporting.digits import percent, plus_minus, significant
from prunelib.reporting.names import method_name
from prunelib.reporting.records import Report
from prunelib.reporting.seeds import Row
from prunelib.reporting.svg import tag

KEY = "○ warm start, not refined; ● refined mask; ◆ mask and updated weights"
"""What the marks mean."""


def class_of(row: Row) -> str:
    """Return the CSS class of a row's mark, which decides its colour."""
    if row.updated:
        return "updated"
    return "mask" if row.refined else "unrefined"


def mark(row: Row, x: float, y: float) -> str:
    """Return the mark of a row at a place."""
    if row.updated:
        return tag("path", d=f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5-5.5 5.5-5.5-5.5z", class_="updated")
    return tag("circle", cx=x, cy=y, r=4.2, class_=class_of(row))


def beyond(row: Row, x: float, y: float, turn: int) -> str:
    """Return the mark of a row whose value is beyond an axis: an arrow, to the right for ``turn`` = 0, up for -90."""
    arrow = f"translate({x:.1f} {y:.1f}) rotate({turn})"
    return tag("path", d="M-4-5l8 5-8 5z", transform=arrow, class_=class_of(row))


def tooltip(report: Report, row: Row, *more: str) -> str:
    """Return the name and the main values of a row as the title of its mark, without times, and further lines."""
    lines = [method_name(report, row)]
    error, reduction = (row.values.get(key) for key in ("relative_error", "error_reduction"))
    lines += [] if error is None else [f"relative error {significant(100 * error)}%"]
    lines += [f"error reduction {percent(reduction)}%"] if reduction is not None and row.refined else []
    lines += [
        f"perplexity {report.label('texts', text)} {shown(row, text)}" for text in report.texts if row.perplexity(text)
    ]
    lines += [f"mean over {row.draws} draws"] if row.draws > 1 else []
    return tag("title", escape("\n".join([*lines, *more])))


def shown(row: Row, text: str) -> str:
    """Return a row's perplexity on a text, with its spread if known."""
    key = f"perplexity_{text}"
    mean, spread = significant(row.values[key]), row.spreads.get(key)
    return mean if spread is None else plus_minus(mean, spread)
