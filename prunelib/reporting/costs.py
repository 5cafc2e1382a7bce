"""Figure: which method for which cost, the error of each method against its time, with the frontier of the best."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.transforms import IdentityTransform

from prunelib.reporting.digits import significant
from prunelib.reporting.labels import place
from prunelib.reporting.limits import is_log, set_linear, set_positive
from prunelib.reporting.marks import Mark, colour_of, draw_marks, tooltip
from prunelib.reporting.names import group_heading, short_names
from prunelib.reporting.records import Report
from prunelib.reporting.seeds import Row
from prunelib.reporting.style import PAPER, shortened
from prunelib.reporting.svg import Panel, draw_panel

COSTS = "costs"
"""Name of the figure."""
_HEIGHT = 360
_ERROR, _SECONDS = "relative_error", "seconds"


def timed(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose error and time are known."""
    return [row for row in rows if row.values.get(_SECONDS) and row.values.get(_ERROR) is not None]


def frontier(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no row undercuts in both error and time, from fast to slow."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.values[_SECONDS], row.values[_ERROR])):
        if not best or row.values[_ERROR] < best[-1].values[_ERROR]:
            best.append(row)
    return best


def cost_panel(report: Report, rows: Sequence[Row]) -> Panel:
    """Draw the panel of a model and a pattern, of rows of :func:`timed`; marks lead to the rows of the table."""

    def paint(axes: Axes) -> None:
        set_positive(axes, "x", [row.values[_SECONDS] for row in rows])
        end = set_linear(axes, "y", [100 * row.values[_ERROR] for row in rows], outlier=2)
        axes.grid(visible=True, axis="y")
        axes.set_title("Relative error, %")
        axes.set_xlabel("Time, s, log scale" if is_log(axes, "x") else "Time, s", loc="right")
        marks = [_mark(row, end) for row in rows]
        for updated in (False, True):
            _draw_frontier(axes, [mark for mark in marks if mark.row.updated is updated])
        draw_marks(axes, marks)
        _draw_labels(axes, report, marks)

    notes = {row.cell.full_name: tooltip(report, row, f"{significant(row.values[_SECONDS], 2)} s") for row in rows}
    return draw_panel(COSTS, group_heading(report, rows), paint, notes, height=_HEIGHT)


def _mark(row: Row, end: float) -> Mark:
    error = 100 * row.values[_ERROR]
    return Mark(row, row.values[_SECONDS], min(error, end), "^" if error > end else None)


def _draw_frontier(axes: Axes, marks: Sequence[Mark]) -> None:
    """Draw the frontier as steps: until the next method's time, the error stays."""
    if not marks:
        return
    best = frontier([mark.row for mark in marks])
    along = [mark for row in best for mark in marks if mark.row is row]
    x, y = [*(mark.x for mark in along), axes.get_xlim()[1]], [*(mark.y for mark in along), along[-1].y]
    axes.step(x, y, where="post", color=colour_of(best[0]), alpha=0.55, linewidth=1.5)


def _draw_labels(axes: Axes, report: Report, marks: Sequence[Mark]) -> None:
    """Write the names beside the marks, those of the frontier first; those without a place have their tooltip."""
    names = dict(zip(map(id, marks), short_names(report, [mark.row for mark in marks]), strict=True))
    best = [row for kind in (False, True) for row in frontier([m.row for m in marks if m.row.updated is kind])]
    ordered = sorted(marks, key=lambda mark: next((at for at, row in enumerate(best) if row is mark.row), len(best)))
    ground = {"boxstyle": "square,pad=0", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.8}
    labels = [
        axes.text(
            0, 0, _label(mark, names[id(mark)]), va="bottom", bbox=ground, transform=IdentityTransform(), in_layout=False
        )
        for mark in ordered
    ]
    axes.figure.draw_without_rendering()  # the layout decides where the marks are
    points = [tuple(axes.transData.transform((mark.x, mark.y))) for mark in ordered]
    extents = [label.get_window_extent() for label in labels]
    for label, box in zip(labels, place(points, [(e.width, e.height) for e in extents], axes.bbox), strict=True):
        if box:
            label.set_position((box.x0, box.y0))
        else:
            label.remove()


def _label(mark: Mark, name: str) -> str:
    return f"{shortened(name)} {significant(100 * mark.row.values[_ERROR])}%" if mark.beyond else shortened(name)
