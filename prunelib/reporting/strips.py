"""A figure of one value a layer, by layer type: a cell's strip shows the blocks from first to last and their mean."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from prunelib.reporting.records import CellReport, Report
from prunelib.reporting.style import INK, WIDTH, colour, heading, legend, marker, refiner_keys, warmstart_keys
from prunelib.results import LayerResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Callable[[LayerResult], float]
SLOT = 0.84  # the share of a layer type's room that its strips take
STRIP = 0.8  # the share of a strip's room that its line takes


def by_type(cells: Sequence[CellReport], value: Value) -> dict[str, list[float]]:
    """The values of all layers by layer type: types in order of first appearance, blocks from first to last."""
    values: dict[str, list[float]] = {}
    for cell in cells:
        for layer in sorted(cell.layers, key=lambda layer: layer.block):
            values.setdefault(layer.kind, []).append(value(layer))
    return values


def strips(report: Report, cells: Sequence[CellReport], value: Value, label: str) -> Figure:
    """One panel a model and pattern; in it, for each layer type, one strip a cell.

    Parameters
    ----------
    value
        What is shown of each layer.
    label
        What it is called, with its unit.
    """
    panels: dict[tuple[str, str | None], list[CellReport]] = {}
    for cell in cells:
        panels.setdefault((cell.cell.model, cell.cell.pattern), []).append(cell)
    kinds = list(by_type(cells, value))
    figure = Figure(figsize=(WIDTH, 0.6 + 2.2 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, sharey=True, squeeze=False)[:, 0]
    for ax, ((model, pattern), members) in zip(axes, panels.items(), strict=True):
        _frame(ax, kinds, heading(report, model, report.label(pattern)), label)
        _panel(ax, report, members, value, kinds)
    axes[0].set_ylim(bottom=min(0, axes[0].get_ylim()[0]))
    refiners = refiner_keys(report, cells)
    legend(figure, warmstart_keys(report, cells) + (refiners if len(refiners) > 1 else []))
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


def _panel(ax: "Axes", report: Report, cells: Sequence[CellReport], value: Value, kinds: Sequence[str]) -> None:
    room = SLOT / len(cells)
    for index, cell in enumerate(cells):
        ink, offset = colour(report, cell), (index + 0.5) * room - SLOT / 2
        for kind, heights in by_type([cell], value).items():
            centre, last = kinds.index(kind) + offset, max(1, len(heights) - 1)
            steps = [centre + STRIP * room * (step / last - 0.5) for step in range(len(heights))]
            ax.plot(steps, heights, color=ink, linewidth=0.9, alpha=0.75)
            ax.plot(centre, sum(heights) / len(heights), markersize=4.5, **marker(report, cell, ink))
