"""Figure: which method for which cost, the error of each method against its time, with the frontier of the best."""

from collections.abc import Sequence

from prunelib.reporting.axes import Axis, linear_axis, positive_axis
from prunelib.reporting.digits import significant
from prunelib.reporting.labels import Box, place
from prunelib.reporting.marks import beyond, mark, tooltip
from prunelib.reporting.names import group_heading, short_names
from prunelib.reporting.records import Report
from prunelib.reporting.seeds import Row
from prunelib.reporting.svg import FONT, WIDTH, panel, shortened, tag, text

HEIGHT = 360
_FRAME = Box(46, 44, WIDTH - 10, HEIGHT - 42)
_LABEL = 150  # largest width of a label, in pixels
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


def point_of(row: Row) -> str:
    """Return the id of a row's mark, to which its row in the table leads."""
    return f"point-{row.cell.full_name}"


def cost_panel(report: Report, rows: Sequence[Row]) -> str:
    """Return the panel of a model and a pattern, of rows of :func:`timed`; marks lead to the rows of the table."""
    across = positive_axis([row.values[_SECONDS] for row in rows], _FRAME.left + 8, _FRAME.right - 8, 34)
    up = linear_axis([100 * row.values[_ERROR] for row in rows], _FRAME.bottom, _FRAME.top, 24, outlier=2)
    masks, updated = ([row for row in rows if row.updated is kind] for kind in (False, True))
    lines = [
        _line(frontier(group), across, up, kind) for group, kind in ((masks, "mask"), (updated, "updated")) if group
    ]
    marks = [_mark(report, row, across, up) for row in rows]
    elements = [*_frame(across, up), *lines, *marks, *_labels(report, rows, across, up)]
    return panel(group_heading(report, rows), WIDTH, HEIGHT, elements)


def _at(row: Row, across: Axis, up: Axis) -> tuple[float, float]:
    return across.at(row.values[_SECONDS]), up.at(100 * row.values[_ERROR])


def _line(rows: Sequence[Row], across: Axis, up: Axis, kind: str) -> str:
    """Return the frontier as steps: until the next method's time, the error stays."""
    (x, y), *others = (_at(row, across, up) for row in rows)
    steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in others)
    return tag("path", d=f"M{x:.1f} {y:.1f}{steps}H{_FRAME.right:g}", class_=f"frontier {kind}")


def _mark(report: Report, row: Row, across: Axis, up: Axis) -> str:
    x, y = _at(row, across, up)
    shape = beyond(row, x, y, -90) if up.beyond(100 * row.values[_ERROR]) else mark(row, x, y)
    note = tooltip(report, row, f"{significant(row.values[_SECONDS], 2)} s")
    return tag("a", note, shape, href=f"#{row.cell.full_name}", id=point_of(row), tabindex=-1)


def _labels(report: Report, rows: Sequence[Row], across: Axis, up: Axis) -> list[str]:
    """Return the names beside the points, those of the frontier first; those without a place have their tooltip."""
    names = {id(row): name for row, name in zip(rows, short_names(report, rows), strict=True)}
    first = [*frontier([row for row in rows if not row.updated]), *frontier([row for row in rows if row.updated])]
    ordered = [*first, *(row for row in rows if row not in first)]
    labels = [shortened(_label(row, names[id(row)], up), _LABEL) for row in ordered]
    boxes = place([_at(row, across, up) for row in ordered], labels, _FRAME)
    return [text(box.left, box.bottom - 3, label, "label") for box, label in zip(boxes, labels, strict=True) if box]


def _label(row: Row, name: str, up: Axis) -> str:
    error = 100 * row.values[_ERROR]
    return f"{name} {significant(error)}%" if up.beyond(error) else name


def _frame(across: Axis, up: Axis) -> list[str]:
    """Return the axes with their ticks and names."""
    elements = [text(0, 2 * FONT + 6, "Relative error, %", "muted")]
    for tick in up.ticks():
        y = up.at(tick)
        elements.append(tag("line", x1=_FRAME.left, x2=_FRAME.right, y1=y, y2=y))
        elements.append(text(_FRAME.left - 6, y + 4, f"{tick:g}", "end muted"))
    for tick in across.ticks():
        x = across.at(tick)
        elements.append(tag("line", x1=x, x2=x, y1=_FRAME.bottom, y2=_FRAME.bottom + 5))
        elements.append(text(x, _FRAME.bottom + 19, f"{tick:g}", "middle muted"))
    elements.append(text(_FRAME.right, HEIGHT - 6, "Time, s, log scale" if across.log else "Time, s", "end muted"))
    return elements
