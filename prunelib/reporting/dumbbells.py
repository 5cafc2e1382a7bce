"""A figure of perplexities: per warm start a line from its own mask to the refined masks, and the dense model."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import blended_transform_factory

from prunelib.reporting.digits import significant
from prunelib.reporting.records import Report
from prunelib.reporting.seeds import Row, grouped, title
from prunelib.reporting.style import INK, WIDTH, colour, heading, legend, marker, refiner_keys

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = tuple[str, list[Row]]
LOG_FROM = 8  # an axis is logarithmic from this ratio of the extremes


def dumbbells(report: Report, rows: Sequence[Row]) -> Figure:
    """Draw one panel per model and text, with one line per warm start under the title of each group of rows."""
    pruned = [row for row in rows if not row.dense]
    models = {model: _lines(report, pruned, model) for model in dict.fromkeys(row.cell.model for row in pruned)}
    heights = [1 + 0.27 * len(lines) for lines in models.values()]
    texts = [text for text in report.texts if report.perplexities(text)]
    figure = Figure(figsize=(WIDTH, 0.3 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(models), len(texts), squeeze=False, sharey="row", height_ratios=heights)
    for across, (model, lines) in zip(axes, models.items(), strict=True):
        _names(across[0], lines)
        for ax, text in zip(across, texts, strict=True):
            ax.set_title(heading(report, model, report.label("texts", text)), pad=16)
            dense = [row for row in rows if row.dense and row.cell.model == model]
            _panel(ax, report, lines, text, _perplexities(dense, text))
    legend(figure, refiner_keys(report, pruned))
    return figure


def _lines(report: Report, pruned: Sequence[Row], model: str) -> list[Line]:
    """Return a panel's lines from top to bottom: a group's title (no rows), then its warm starts with their rows."""
    lines: list[Line] = []
    for group in grouped(row for row in pruned if row.cell.model == model):
        lines.append((title(report, group), []))
        starts = dict.fromkeys(row.cell.warmstart for row in group)
        lines += [
            (report.label("warmstarts", start), [row for row in group if row.cell.warmstart == start])
            for start in starts
        ]
    return lines


def _names(ax: "Axes", lines: Sequence[Line]) -> None:
    ax.set_yticks(range(len(lines)), [name for name, _ in lines])
    for tick, (_, members) in zip(ax.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("normal" if members else "bold")
    ax.set_ylim(len(lines) - 0.4, -0.6)


def _panel(ax: "Axes", report: Report, lines: Sequence[Line], text: str, dense: Sequence[float]) -> None:
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    for height, (_, members) in enumerate(lines):
        _line(ax, report, height, members, text)
    for value in dense:
        _dense(ax, value)
    shown = [value for _, members in lines for value in _perplexities(members, text)]
    if shown or dense:
        _scale(ax, [*shown, *dense])


def _perplexities(rows: Iterable[Row], text: str) -> list[float]:
    """Return the rows' known perplexities."""
    return [value for row in rows if (value := row.perplexity(text)) is not None]


def _line(ax: "Axes", report: Report, height: int, rows: Sequence[Row], text: str) -> None:
    points = [(row, value) for row in rows if (value := row.perplexity(text)) is not None]
    if not points:
        return
    values = [value for _, value in points]
    ink, low, high = colour(report, rows[0]), min(values), max(values)
    ax.plot((low, high), (height, height), color=ink, linewidth=1.6, alpha=0.6)
    for row, value in points:
        ax.plot(value, height, markersize=6, **marker(report, row, ink))
    _note(ax, significant(high), (high, height), (7, 0), ha="left", va="center")
    if low < high:
        _note(ax, significant(low), (low, height), (-7, 0), ha="right", va="center")


def _dense(ax: "Axes", value: float) -> None:
    ax.axvline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    top = blended_transform_factory(ax.transData, ax.transAxes)
    _note(ax, f"dense {significant(value)}", (value, 1), (0, 3), xycoords=top, ha="center")


def _note(ax: "Axes", note: str, place: tuple[float, float], shift: tuple[float, float], **settings: Any) -> None:
    ax.annotate(note, place, shift, textcoords="offset points", fontsize=8, **settings)


def _scale(ax: "Axes", values: Sequence[float]) -> None:
    """Set axis limits with margins for the notes at the extremes; from a ratio of LOG_FROM, use a logarithmic axis."""
    low, high = min(values), max(values)
    if high < LOG_FROM * low:
        margin = 0.2 * (high - low) or 0.2 * high
        ax.set_xlim(low - margin, high + margin)
        ax.set_xlabel("Perplexity")
        return
    ax.set_xscale("log")
    margin = (high / low) ** 0.14
    ax.set_xlim(low / margin, high * margin)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("Perplexity, log scale")
