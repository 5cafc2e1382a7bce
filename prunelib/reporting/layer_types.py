"""Figure: one value of each method by layer type, as numbers on a ground whose strength follows them."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from prunelib.reporting.marks import tooltip
from prunelib.reporting.names import group_heading, short_names
from prunelib.reporting.records import Record, Report
from prunelib.reporting.seeds import Row
from prunelib.reporting.svg import WIDTH, panel, shortened, tag, text, width_of

_LINE = 22  # pixels per row
_NAME = 150  # largest width of a name, in pixels
_NARROWEST = 31  # of a layer type's column, in pixels
_TURN = 40  # of the columns' headings, in degrees
_STRONGEST = 0.5  # opacity of the largest value: text on it stays legible

Means = Mapping[str, float]


def means_by_type(layers: Sequence[Record], column: str) -> dict[str, Means]:
    """Return the mean of a column of layers.csv over the layers of each type, by cell, then by type."""
    found: dict[str, dict[str, list[float]]] = {}
    for layer in layers:
        if layer[column] is not None:
            found.setdefault(layer["cell"], {}).setdefault(layer["kind"], []).append(layer[column])
    return {cell: {kind: fmean(values) for kind, values in kinds.items()} for cell, kinds in found.items()}


def of_row(row: Row, means: Mapping[str, Means]) -> Means:
    """Return the means of a row over its draws, by layer type; empty if unknown."""
    known = [means[record["cell"]] for record in row.records if record["cell"] in means]
    return {kind: fmean(each[kind] for each in known if kind in each) for kind in (known[0] if known else ())}


def type_panel(
    report: Report, rows: Sequence[Row], values: Sequence[Means], show: Callable[[float], str]
) -> tuple[str, tuple[float, float]]:
    """Return the panel of a group of comparable rows, and its width and height."""
    kinds = list(dict.fromkeys(kind for each in values for kind in each))
    names = [shortened(name, _NAME) for name in short_names(report, rows)]
    start = max(map(width_of, names)) + 10
    step = max(_NARROWEST, (WIDTH - start) / len(kinds))
    top = 30 + 0.64 * max(map(width_of, kinds))
    size = (start + step * len(kinds), top + _LINE * len(rows) + 4)
    largest = max(abs(value) for each in values for value in each.values()) or 1.0
    headings = [_heading(kind, start + (index + 0.3) * step, top - 6) for index, kind in enumerate(kinds)]
    lines = [
        tag(
            "g",
            tooltip(report, row),
            text(start - 8, top + (index + 0.68) * _LINE, name, "end"),
            *(
                _value(each.get(kind), start + at * step, top + index * _LINE, step, largest, show)
                for at, kind in enumerate(kinds)
            ),
        )
        for index, (row, name, each) in enumerate(zip(rows, names, values, strict=True))
    ]
    return panel(group_heading(report, rows), *size, [*headings, *lines]), size


def _heading(kind: str, x: float, y: float) -> str:
    return text(x, y, kind, "muted", transform=f"rotate(-{_TURN} {x:.1f} {y:.1f})")


def _value(value: float | None, x: float, y: float, width: float, largest: float, show: Callable[[float], str]) -> str:
    """Return a number on its ground, of another colour for a negative one."""
    if value is None:
        return ""
    kind, strength = "updated" if value < 0 else "mask", _STRONGEST * abs(value) / largest
    ground = tag(
        "rect", x=x + 0.5, y=y + 0.5, width=width - 1, height=_LINE - 1, class_=kind, opacity=f"{strength:.2f}"
    )
    return ground + text(x + width / 2, y + 0.68 * _LINE, show(value), "middle")
