"""Figure: which method for which cost, the error of each method against its time, with the frontier of the best."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import IdentityTransform

from prunelib.reporting.digits import significant
from prunelib.reporting.label_placement import place
from prunelib.reporting.limits import is_log, set_linear, set_positive
from prunelib.reporting.marks import Mark, colour_of, draw_marks, tooltip
from prunelib.reporting.names import group_heading, short_names
from prunelib.reporting.report import Report
from prunelib.reporting.rows import Row
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
        set_linear(axes, "y", [100 * row.values[_ERROR] for row in rows], outlier=2)
        axes.grid(visible=True, axis="y")
        axes.set_title("Relative error, %")
        axes.set_xlabel("Time, s, log scale" if is_log(axes, "x") else "Time, s", loc="right")
        for group in _frontiers(rows):
            _draw_steps(axes, [_mark(axes, row) for row in group])
        draw_marks(axes, [_mark(axes, row) for row in rows])

    notes = {row.cell.full_name: tooltip(report, row, f"{significant(row.values[_SECONDS], 2)} s") for row in rows}
    return draw_panel(
        COSTS,
        group_heading(report, rows),
        paint,
        notes,
        finish=lambda axes: _write_names(axes, report, rows),
        height=_HEIGHT,
    )


def _frontiers(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the frontier of masks alone, and that with updated weights; without empty ones."""
    groups = (frontier([row for row in rows if row.updated is updated]) for updated in (False, True))
    return [group for group in groups if group]


def _mark(axes: Axes, row: Row) -> Mark:
    error, end = 100 * row.values[_ERROR], axes.get_ylim()[1]
    return Mark(row, row.values[_SECONDS], min(error, end), "^" if error > end else None)


def _draw_steps(axes: Axes, best: Sequence[Mark]) -> None:
    """Draw a frontier as steps: until the next method's time, the error stays."""
    x, y = [*(mark.x for mark in best), axes.get_xlim()[1]], [*(mark.y for mark in best), best[-1].y]
    axes.step(x, y, where="post", color=colour_of(best[0].row), alpha=0.55, linewidth=1.5)


def _write_names(axes: Axes, report: Report, rows: Sequence[Row]) -> None:
    """Write the names beside the marks, those of the frontiers first; those without a place have their tooltip."""
    names = {row.cell: shortened(name) for row, name in zip(rows, short_names(report, rows), strict=True)}
    best = [row for group in _frontiers(rows) for row in group]
    marks = [_mark(axes, row) for row in [*best, *(row for row in rows if row not in best)]]
    labels = [_write(axes, mark, names[mark.row.cell]) for mark in marks]
    points = [(x, y) for x, y in axes.transData.transform([(mark.x, mark.y) for mark in marks])]
    sizes = [(extent.width, extent.height) for extent in (label.get_window_extent() for label in labels)]
    for label, box in zip(labels, place(points, sizes, axes.bbox), strict=True):
        if box:
            label.set_position((box.x0, box.y0))
        else:
            label.remove()


def _write(axes: Axes, mark: Mark, name: str) -> Text:
    """Write a name somewhere, and the error where the mark does not show it."""
    words = f"{name} {significant(100 * mark.row.values[_ERROR])}%" if mark.beyond else name
    ground = {"boxstyle": "square,pad=0", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.8}
    return axes.text(0, 0, words, va="bottom", bbox=ground, transform=IdentityTransform(), in_layout=False)
