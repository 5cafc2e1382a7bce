"""The marks of rows in figures: a shape and a colour for what a method changes, and a tooltip with its values."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from prunelib.reporting.digits import percent, plus_minus, significant
from prunelib.reporting.names import method_name
from prunelib.reporting.report import Report
from prunelib.reporting.rows import Row
from prunelib.reporting.style import BLOCKS, MASK, PAPER, UPDATED
from prunelib.reporting.svg import link_to

KEY = "○ warm start, not refined; ● refined mask; ◆ mask and updated weights; ■ blocks reconstructed"
"""What the marks mean."""

_SHAPES: dict[str, dict[str, Any]] = {
    "unrefined": {"marker": "o", "s": 64, "facecolor": PAPER, "edgecolor": MASK},
    "mask": {"marker": "o", "s": 64, "facecolor": MASK, "edgecolor": MASK},
    "updated": {"marker": "D", "s": 49, "facecolor": UPDATED, "edgecolor": UPDATED},
    "reconstructed": {"marker": "s", "s": 56, "facecolor": BLOCKS, "edgecolor": BLOCKS},
}


class Mark(NamedTuple):
    """The mark of a row at a place in data coordinates; ``beyond`` is the arrow of a value beyond an axis."""

    row: Row
    x: float
    y: float
    beyond: str | None = None


def draw_marks(axes: Axes, marks: Iterable[Mark]) -> None:
    """Draw marks that lead to the rows of the table, all of one kind as one artist."""
    kinds: dict[tuple[str, str | None], list[Mark]] = {}
    for mark in marks:
        kinds.setdefault((_kind(mark.row), mark.beyond), []).append(mark)
    for (kind, beyond), members in kinds.items():
        shape = {**_SHAPES[kind], **({"marker": beyond} if beyond else {})}
        urls = [link_to(mark.row.cell.full_name) for mark in members]
        x, y = [mark.x for mark in members], [mark.y for mark in members]
        axes.scatter(x, y, urls=urls, clip_on=False, zorder=3, linewidth=1.2, **shape)


def colour_of(row: Row) -> str:
    """Return the colour of a row."""
    return str(_SHAPES[_kind(row)]["edgecolor"])


def _kind(row: Row) -> str:
    if row.reconstructed:
        return "reconstructed"
    if row.updated:
        return "updated"
    return "mask" if row.refined else "unrefined"


def tooltip(report: Report, row: Row, *more: str) -> str:
    """Return the name and the main values of a row, without times, and further lines."""
    lines = [method_name(report, row)]
    error, reduction = (row.values.get(key) for key in ("relative_error", "error_reduction"))
    lines += [] if error is None else [f"relative error {significant(100 * error)}%"]
    lines += [f"block error {significant(100 * row.values['block_error'])}%"] if row.reconstructed else []
    lines += [f"error reduction {percent(reduction)}%"] if reduction is not None and row.refined else []
    lines += [
        f"perplexity {report.label('texts', text)} {shown(row, text)}" for text in report.texts if row.perplexity(text)
    ]
    lines += [f"mean over {row.draws} draws"] if row.draws > 1 else []
    return "; ".join([*lines, *more])


def shown(row: Row, text: str) -> str:
    """Return a row's perplexity on a text, with its spread if known."""
    key = f"perplexity_{text}"
    mean, spread = significant(row.values[key]), row.spreads.get(key)
    return mean if spread is None else plus_minus(mean, spread)
