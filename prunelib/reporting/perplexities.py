"""Figure: the perplexity of each method on one text, the best first, beside the dense model."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from prunelib.reporting.digits import significant
from prunelib.reporting.limits import set_linear
from prunelib.reporting.marks import Mark, colour_of, draw_marks, shown, tooltip
from prunelib.reporting.names import heading, short_names
from prunelib.reporting.report import Report
from prunelib.reporting.rows import Row, title
from prunelib.reporting.style import INK, MUTED, shortened
from prunelib.reporting.svg import Panel, draw_panel

_LINE, _AROUND = 19, 72  # pixels per row, and above and below all rows


def perplexity_panel(report: Report, rows: Sequence[Row], dense: float | None, text: str) -> Panel:
    """Draw the panel of a model, a pattern and a text.

    Parameters
    ----------
    rows
        Those with a perplexity on the text.
    dense
        Perplexity of the dense model; None if unknown.
    text
        Name of the text in the grid.
    """
    ranked = sorted(rows, key=lambda row: row.values[f"perplexity_{text}"])
    names = dict(zip(map(id, rows), short_names(report, rows), strict=True))

    def paint(axes: Axes) -> None:
        axes.set_yticks(range(len(ranked)), [shortened(names[id(row)]) for row in ranked], color=INK)
        axes.set_ylim(len(ranked) - 0.5, -0.5)
        values = [row.values[f"perplexity_{text}"] for row in ranked]
        end = set_linear(axes, "x", [*values, *([dense] if dense else [])], outlier=3)
        axes.grid(visible=True, axis="x")
        if dense:
            _draw_dense(axes, dense)
        marks = []
        for place, (row, value) in enumerate(zip(ranked, values, strict=True)):
            spread = row.spreads.get(f"perplexity_{text}")
            if spread:
                axes.hlines(place, value - spread, value + spread, colour_of(row))
            _write_value(axes, place, shown(row, text))
            marks.append(Mark(row, min(value, end), place, ">" if value > end else None))
        draw_marks(axes, marks)

    name = f"{title(report, [_mask(rows)])}, {report.label('texts', text)}"
    return draw_panel(
        f"perplexity-{text}",
        heading(report, rows[0].cell.model, name),
        paint,
        {row.cell.full_name: tooltip(report, row) for row in rows},
        height=_LINE * len(rows) + _AROUND,
    )


def _mask(rows: Sequence[Row]) -> Row:
    """Return a row of masks alone if there is one: its group's title is that of the pattern."""
    return next((row for row in rows if not row.updated), rows[0])


def _write_value(axes: Axes, place: int, value: str) -> None:
    """Write the value of a row right of the axes, beyond the marks."""
    right = axes.get_yaxis_transform()
    axes.annotate(value, (1, place), (12, 0), right, textcoords="offset points", va="center_baseline")


def _draw_dense(axes: Axes, value: float) -> None:
    axes.axvline(value, color=MUTED, linestyle="--", linewidth=1)
    axes.annotate(
        f"dense {significant(value)}",
        (value, 1),
        (0, 4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        color=MUTED,
        ha="center",
    )
