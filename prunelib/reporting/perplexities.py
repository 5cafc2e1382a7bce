"""Figure: the perplexity of each method on one text, the best first, beside the dense model."""

from collections.abc import Sequence

from prunelib.reporting.axes import Axis, linear_axis
from prunelib.reporting.digits import significant
from prunelib.reporting.marks import beyond, class_of, mark, shown, tooltip
from prunelib.reporting.names import heading, short_names
from prunelib.reporting.records import Report
from prunelib.reporting.seeds import Row, title
from prunelib.reporting.svg import FONT, WIDTH, panel, shortened, tag, text, width_of

_LINE = 19  # pixels per row
_TOP, _BOTTOM = 46, 24
_VALUE = width_of("121.3 ± 12.3")
_NAME = 170  # largest width of a name, in pixels


def height_of(rows: Sequence[Row]) -> float:
    """Return the height of a panel of some rows, in pixels."""
    return _TOP + _LINE * len(rows) + _BOTTOM


def perplexity_panel(report: Report, rows: Sequence[Row], dense: float | None, words: str) -> str:
    """Return the panel of a model, a pattern and a text.

    Parameters
    ----------
    rows
        Those with a perplexity on the text.
    dense
        Perplexity of the dense model; None if unknown.
    words
        Name of the text in the grid.
    """
    names = [shortened(name, _NAME) for name in short_names(report, rows)]
    start = max(map(width_of, names)) + 12
    values = [row.values[f"perplexity_{words}"] for row in rows]
    axis = linear_axis([*values, *([dense] if dense else [])], start, WIDTH - _VALUE - 8, 34, outlier=3)
    ranked = sorted(zip(values, range(len(rows)), strict=True))
    lines = [
        _row(report, rows[index], names[index], axis, _TOP + (place + 0.5) * _LINE, words)
        for place, (_, index) in enumerate(ranked)
    ]
    bottom = height_of(rows) - _BOTTOM
    elements = [*_ticks(axis, bottom), *(_dense(axis, dense, bottom) if dense else []), *lines]
    name = heading(report, rows[0].cell.model, f"{title(report, [_mask(rows)])}, {report.label('texts', words)}")
    return panel(name, WIDTH, height_of(rows), elements)


def _mask(rows: Sequence[Row]) -> Row:
    """Return a row of masks alone if there is one: its group's title is that of the pattern."""
    return next((row for row in rows if not row.updated), rows[0])


def _row(report: Report, row: Row, name: str, axis: Axis, y: float, words: str) -> str:
    value, spread = row.values[f"perplexity_{words}"], row.spreads.get(f"perplexity_{words}")
    x = axis.at(value)
    shape = beyond(row, x, y, 0) if axis.beyond(value) else mark(row, x, y)
    reach = axis.at(value + spread) if spread else x
    bar = tag("line", x1=axis.at(value - spread), x2=reach, y1=y, y2=y, class_=class_of(row)) if spread else ""
    number = text(max(reach, x + 5) + 6, y + 4.5, shown(row, words))
    return tag("g", tooltip(report, row), text(axis.start - 10, y + 4.5, name, "end"), bar, shape, number)


def _ticks(axis: Axis, bottom: float) -> list[str]:
    ticks = [(tick, axis.at(tick)) for tick in axis.ticks()]
    lines = [tag("line", x1=x, x2=x, y1=_TOP, y2=bottom) for _, x in ticks]
    return lines + [text(x, bottom + FONT + 4, f"{tick:g}", "middle muted") for tick, x in ticks]


def _dense(axis: Axis, value: float, bottom: float) -> list[str]:
    x, note = axis.at(value), f"dense {significant(value)}"
    middle = max(x, width_of(note) / 2)
    return [
        tag("line", x1=x, x2=x, y1=_TOP - 4, y2=bottom, class_="dense"),
        text(middle, _TOP - 8, note, "middle muted"),
    ]
