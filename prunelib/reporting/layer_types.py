"""Figure: one value of each method by layer type, as numbers on a ground whose strength follows them."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from prunelib.reporting.marks import tooltip
from prunelib.reporting.names import group_heading, short_names
from prunelib.reporting.report import Record, Report
from prunelib.reporting.rows import Row
from prunelib.reporting.style import INK, MASK, PAPER, UPDATED, WIDTH, shortened
from prunelib.reporting.svg import Panel, draw_panel, link_to

_LINE, _CHARACTER, _TITLE = 22, 9, 32  # pixels per row, per character of a heading, and of the title
_NAMES, _NARROWEST = 195, 29  # pixels for the names, and least of a layer type's column
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
    report: Report, name: str, rows: Sequence[Row], values: Sequence[Means], show: Callable[[float], str]
) -> Panel:
    """Draw the panel of a group of comparable rows; ``name`` is that of the figure."""
    kinds = list(dict.fromkeys(kind for each in values for kind in each))
    table = np.array([[each.get(kind, np.nan) for kind in kinds] for each in values])

    def paint(axes: Axes) -> None:
        axes.pcolormesh(_grounds(table), edgecolor=PAPER, linewidth=1, clip_on=False)
        axes.invert_yaxis()
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(len(kinds)) + 0.5, kinds, rotation=90, va="center", ha="left", rotation_mode="anchor")
        axes.set_yticks(np.arange(len(rows)) + 0.5, map(shortened, short_names(report, rows)), color=INK)
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_url(link_to(row.cell.full_name))
        for (row, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                axes.text(column + 0.5, row + 0.5, show(value), ha="center", va="center_baseline")

    return draw_panel(
        name,
        group_heading(report, rows),
        paint,
        {row.cell.full_name: tooltip(report, row) for row in rows},
        width=max(WIDTH, _NAMES + _NARROWEST * len(kinds)),
        height=_TITLE + _CHARACTER * max(map(len, kinds)) + _LINE * len(rows),
    )


def _grounds(table: np.ndarray) -> np.ndarray:
    """Return the colours (rows, types, RGBA) behind the numbers, of another hue for negative ones."""
    largest = np.nanmax(np.abs(table)) or 1.0
    colours = np.where((table < 0)[..., None], to_rgba(UPDATED), to_rgba(MASK))
    colours[..., 3] = _STRONGEST * np.nan_to_num(np.abs(table) / largest)
    return colours
