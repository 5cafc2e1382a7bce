"""The report's figures as deterministic SVG, each with a caption that explains it."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import style

from prunelib.reporting.draws import means
from prunelib.reporting.dumbbells import dumbbells
from prunelib.reporting.records import Report
from prunelib.reporting.seeds import Row, rows_of
from prunelib.reporting.strips import by_type, strips
from prunelib.reporting.style import STYLE, svg

_STRIPS_CAPTION = "Each thin line runs through the blocks from first to last; its marker is their mean."


@dataclass(frozen=True)
class Drawing:
    """A finished figure: file stem, heading, caption and SVG."""

    name: str
    title: str
    caption: str
    svg: str


def draw(report: Report) -> list[Drawing]:
    """Draw the figures that have data, in reading order."""
    known = rows_of(report)
    evaluated = [row for row in known if any(row.perplexity(text) for text in report.texts)]
    refined = [row for row in known if row.refined]
    swapped = [row for row in refined if row.values.get("swaps_per_row")]
    with style.context(["default", STYLE]):
        return [
            *([_perplexity(report, evaluated)] if not all(row.dense for row in evaluated) else []),
            *([_error_reduction(report, refined)] if refined else []),
            *([_swaps(report, swapped)] if swapped else []),
        ]


def _perplexity(report: Report, rows: Sequence[Row]) -> Drawing:
    return Drawing(
        name="perplexity",
        title="Perplexity",
        caption="Lower is better; the dashed line is the dense model. "
        "A line joins the masks from the same warm start; its hollow marker is the warm start itself, not refined."
        f"{_means(report, rows)}",
        svg=svg(dumbbells(report, rows)),
    )


def _means(report: Report, rows: Sequence[Row]) -> str:
    sentence = means(report, rows)
    return f" {sentence}" if sentence else ""


def _error_reduction(report: Report, rows: Sequence[Row]) -> Drawing:
    figure = strips(report, rows, lambda layer: 100 * layer.error_reduction, "Error reduction, %")
    return Drawing(
        name="error_reduction",
        title="Error reduction by layer type",
        caption="The share of its warm start's error that refining takes from a layer. "
        f"{_extremes(rows)} {_STRIPS_CAPTION}{_means(report, rows)}",
        svg=svg(figure),
    )


def _extremes(rows: Sequence[Row]) -> str:
    reductions = by_type(rows, lambda layer: layer.error_reduction)
    means = {kind: sum(values) / len(values) for kind, values in reductions.items()}
    most, least = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return f"Over all cells it is most in {most} ({means[most]:.0%}) and least in {least} ({means[least]:.0%})."


def _swaps(report: Report, rows: Sequence[Row]) -> Drawing:
    figure = strips(report, rows, lambda layer: (layer.swaps or 0) / layer.rows, "Swaps per row")
    return Drawing(
        name="swaps",
        title="Swaps per row by layer type",
        caption="How many pairs of weights change places, on average over a layer's rows. "
        f"{_STRIPS_CAPTION}{_means(report, rows)}",
        svg=svg(figure),
    )
