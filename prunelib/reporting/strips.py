"""A figure of one value per layer, by layer type: a strip shows a row's blocks from first to last, and their mean."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from prunelib.reporting.records import Report
from prunelib.reporting.seeds import Row, grouped, title
from prunelib.reporting.style import INK, WIDTH, colour, heading, legend, marker, refiner_keys, warmstart_keys
from prunelib.results import LayerResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Callable[[LayerResult], float]
SLOT = 0.84  # fraction of a layer type's width that its strips occupy
STRIP = 0.8  # fraction of a strip's width that its line occupies


def by_type(rows: Sequence[Row], value: Value) -> dict[str, list[float]]:
    """Return the layers' values, averaged over seeds, by type in order of first appearance, blocks first to last."""
    values: dict[str, list[float]] = {}
    for row in rows:
        by_block = [sorted(cell.layers, key=lambda layer: layer.block) for cell in row.cells]
        for draws in zip(*by_block, strict=True):
            values.setdefault(draws[0].kind, []).append(fmean(map(value, draws)))
    return values


def strips(report: Report, rows: Sequence[Row], value: Value, label: str) -> Figure:
    """Draw one panel per group of comparable rows, with one strip per layer type and row.

    Parameters
    ----------
    value
        Function from a layer to the value shown.
    label
        Axis label of the value, with its unit.
    """
    panels, kinds = grouped(rows), list(by_type(rows, value))
    figure = Figure(figsize=(WIDTH, 0.6 + 2.2 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, sharey=True, squeeze=False)[:, 0]
    for ax, group in zip(axes, panels, strict=True):
        _frame(ax, kinds, heading(report, group[0].cell.model, title(report, group)), label)
        _panel(ax, report, group, value, kinds)
    axes[0].set_ylim(bottom=min(0, axes[0].get_ylim()[0]))
    refiners = refiner_keys(report, rows)
    legend(figure, warmstart_keys(report, rows) + (refiners if len(refiners) > 1 else []))
    return figure


def _frame(ax: "Axes", kinds: Sequence[str], title: str, label: str) -> None:
    ax.set_title(title)
    ax.set_ylabel(label)
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set_xlim(-0.5, len(kinds) - 0.5)
    ax.tick_params(length=0)
    ax.grid(axis="y")
    for position in range(1, len(kinds), 2):
        ax.axvspan(position - 0.5, position + 0.5, color=INK, alpha=0.04, linewidth=0)


def _panel(ax: "Axes", report: Report, group: Sequence[Row], value: Value, kinds: Sequence[str]) -> None:
    width = SLOT / len(group)
    for index, row in enumerate(group):
        ink, offset = colour(report, row), (index + 0.5) * width - SLOT / 2
        for kind, heights in by_type([row], value).items():
            centre, last = kinds.index(kind) + offset, max(1, len(heights) - 1)
            steps = [centre + STRIP * width * (step / last - 0.5) for step in range(len(heights))]
            ax.plot(steps, heights, color=ink, linewidth=0.9, alpha=0.75)
            ax.plot(centre, sum(heights) / len(heights), markersize=4.5, **marker(report, row, ink))
