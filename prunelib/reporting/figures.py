"""The report's figures as deterministic SVG, each with a caption that says what is seen in it."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import style

from prunelib.reporting.dumbbells import dumbbells
from prunelib.reporting.records import CellReport, Report
from prunelib.reporting.strips import by_type, strips
from prunelib.reporting.style import STYLE, svg

_STRIPS_CAPTION = "Each thin line runs through the blocks from first to last; its marker is their mean."


@dataclass(frozen=True)
class Drawing:
    """A finished figure: the stem of its file's name, its heading, its caption and the SVG."""

    name: str
    title: str
    caption: str
    svg: str


def draw(report: Report) -> list[Drawing]:
    """The figures that have something to show, in the order in which they are read."""
    evaluated = [
        cell for cell in report.cells if not cell.dense and not cell.result.perplexity.keys().isdisjoint(report.texts)
    ]
    refined = [cell for cell in report.cells if cell.refined]
    swapped = [cell for cell in report.cells if cell.swaps_per_row]
    with style.context(["default", STYLE]):
        return [
            *([_perplexity(report, evaluated)] if evaluated else []),
            *([_error_reduction(report, refined)] if refined else []),
            *([_swaps(report, swapped)] if swapped else []),
        ]


def _perplexity(report: Report, cells: Sequence[CellReport]) -> Drawing:
    return Drawing(
        name="perplexity",
        title="Perplexity",
        caption="Lower is better; the dashed line is the dense model. "
        "A line joins the masks from the same warm start; its hollow marker is the warm start itself, not refined.",
        svg=svg(dumbbells(report, cells)),
    )


def _error_reduction(report: Report, cells: Sequence[CellReport]) -> Drawing:
    figure = strips(report, cells, lambda layer: 100 * layer.error_reduction, "Error reduction, %")
    return Drawing(
        name="error_reduction",
        title="Error reduction by layer type",
        caption="The share of its warm start's error that refining takes from a layer. "
        f"{_extremes(cells)} {_STRIPS_CAPTION}",
        svg=svg(figure),
    )


def _extremes(cells: Sequence[CellReport]) -> str:
    reductions = by_type(cells, lambda layer: layer.error_reduction)
    means = {kind: sum(values) / len(values) for kind, values in reductions.items()}
    most, least = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return f"Over all cells it is most in {most} ({means[most]:.0%}) and least in {least} ({means[least]:.0%})."


def _swaps(report: Report, cells: Sequence[CellReport]) -> Drawing:
    figure = strips(report, cells, lambda layer: (layer.swaps or 0) / layer.rows, "Swaps per row")
    return Drawing(
        name="swaps",
        title="Swaps per row by layer type",
        caption=f"How many pairs of weights change places, on average over a layer's rows. {_STRIPS_CAPTION}",
        svg=svg(figure),
    )
