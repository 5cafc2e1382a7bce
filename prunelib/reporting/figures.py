"""The report's figures as deterministic SVG, one panel per pattern, each figure with a caption that explains it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunelib.reporting.costs import COSTS, cost_panel, timed
from prunelib.reporting.digits import significant
from prunelib.reporting.draws import means
from prunelib.reporting.layer_types import Means, means_by_type, of_row, type_panel
from prunelib.reporting.marks import KEY
from prunelib.reporting.names import by_pattern
from prunelib.reporting.perplexities import perplexity_panel
from prunelib.reporting.report import Report
from prunelib.reporting.rows import Row, grouped, rows_of
from prunelib.reporting.svg import Panel, standalone


@dataclass(frozen=True)
class Drawing:
    """A finished figure: file stem, heading, caption, and its panels."""

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]

    @property
    def svg(self) -> str:
        """The figure as a file of its own."""
        return standalone(self.panels)


def draw(report: Report) -> list[Drawing]:
    """Draw the figures without times that have data, in reading order."""
    known = rows_of(report)
    drawn = [
        _perplexity(report, known),
        _by_type(
            report,
            known,
            "error_reduction",
            "Error reduction by layer type, %",
            "The share of its warm start's error that refinement removes from a layer, mean over the layers of a type.",
            lambda share: f"{100 * share:.0f}",
        ),
        _by_type(
            report,
            known,
            "swaps_per_row",
            "Swaps per row by layer type",
            "How many pairs of weights a refiner exchanged, per row of a layer, mean over the layers of a type.",
            lambda count: significant(count, 2),
        ),
    ]
    return [drawing for drawing in drawn if drawing.panels]


def cost_groups(report: Report) -> list[list[Row]]:
    """Return the rows of each panel of the figure of costs: at least two of a pattern, with known times."""
    return [group for rows in by_pattern(rows_of(report)) if len(group := timed(rows)) > 1]


def draw_costs(report: Report) -> Drawing | None:
    """Draw error against time; None if no pattern has two rows with known times."""
    groups = cost_groups(report)
    if not groups:
        return None
    return Drawing(
        name=COSTS,
        title="Which method for which cost",
        caption=f"{KEY}. Down and to the left is better; a line is the lowest error for each time, of masks alone and "
        "with updated weights. An arrow is beyond the axis. Time is that of the stage refine. Marks show their values, "
        "and lead to their rows in the table.",
        panels=[cost_panel(report, group) for group in groups],
    )


def _perplexity(report: Report, known: Sequence[Row]) -> Drawing:
    dense = {row.cell.model: row for row in known if row.dense}
    pruned = [row for row in known if not row.dense]
    panels = []
    for rows in by_pattern(pruned):
        for text in report.texts:
            measured = [row for row in rows if row.perplexity(text) is not None]
            if measured:
                reference = dense.get(measured[0].cell.model)
                value = reference.perplexity(text) if reference else None
                panels.append(perplexity_panel(report, measured, value, text))
    caption = (
        f"{KEY}. Lower is better, the best first; the dashed line is the dense model. An arrow is beyond the axis."
    )
    drawn = [row for row in pruned if any(row.perplexity(text) for text in report.texts)]
    return Drawing("perplexity", "Perplexity", _captioned(caption, drawn), panels)


def _by_type(
    report: Report, known: Sequence[Row], column: str, title: str, caption: str, show: Callable[[float], str]
) -> Drawing:
    by_cell = means_by_type(report.layers, column)
    refined = [(row, of_row(row, by_cell)) for row in known if row.refined]
    shown: dict[int, Means] = {id(row): values for row, values in refined if any(values.values())}
    groups = grouped(row for row, _ in refined if id(row) in shown)
    panels = [type_panel(report, column, group, [shown[id(row)] for row in group], show) for group in groups]
    drawn = [row for group in groups for row in group]
    return Drawing(column, title, _captioned(caption, drawn), panels)


def _captioned(caption: str, rows: Sequence[Row]) -> str:
    sentence = means(rows)
    return f"{caption} {sentence}" if sentence else caption
