"""A figure of perplexities: for each warm start a line from its own mask to the refined ones, and the dense model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import blended_transform_factory

from prunelib.reporting.records import CellReport, Report
from prunelib.reporting.style import INK, WIDTH, colour, heading, legend, marker, refiner_keys
from prunelib.reporting.tables import significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = tuple[str, list[CellReport]]
LOG_FROM = 8  # the ratio of the extremes from which an axis is logarithmic


def dumbbells(report: Report, cells: Sequence[CellReport]) -> Figure:
    """One panel a model and text; in it, under each pattern's name, one line a warm start."""
    models = {model: _lines(report, model) for model in dict.fromkeys(cell.cell.model for cell in cells)}
    heights = [1 + 0.27 * len(lines) for lines in models.values()]
    texts = [text for text in report.texts if report.perplexities(text)]
    figure = Figure(figsize=(WIDTH, 0.3 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(models), len(texts), squeeze=False, sharey="row", height_ratios=heights)
    for row, (model, lines) in zip(axes, models.items(), strict=True):
        _names(row[0], lines)
        for ax, text in zip(row, texts, strict=True):
            ax.set_title(heading(report, model, report.label(text)), pad=16)
            _panel(ax, report, model, lines, text)
    legend(figure, refiner_keys(report, cells))
    return figure


def _lines(report: Report, model: str) -> list[Line]:
    """The lines of a panel from top to bottom: a pattern's name (no cells), then its warm starts with their cells."""
    lines: list[Line] = []
    for pattern, cells in report.groups(model).items():
        if pattern is None:
            continue
        lines.append((report.label(pattern), []))
        starts = dict.fromkeys(cell.cell.warmstart for cell in cells)
        lines += [(report.label(start), [cell for cell in cells if cell.cell.warmstart == start]) for start in starts]
    return lines


def _names(ax: "Axes", lines: Sequence[Line]) -> None:
    ax.set_yticks(range(len(lines)), [name for name, _ in lines])
    for tick, (_, members) in zip(ax.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("normal" if members else "bold")
    ax.set_ylim(len(lines) - 0.4, -0.6)


def _panel(ax: "Axes", report: Report, model: str, lines: Sequence[Line], text: str) -> None:
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    known = [cell for cell in report.cells if cell.cell.model == model and text in cell.result.perplexity]
    for height, (_, members) in enumerate(lines):
        _line(ax, report, height, [cell for cell in members if text in cell.result.perplexity], text)
    _dense(ax, [cell for cell in known if cell.dense], text)
    if known:
        _scale(ax, [cell.result.perplexity[text].value for cell in known])


def _line(ax: "Axes", report: Report, height: int, cells: Sequence[CellReport], text: str) -> None:
    if not cells:
        return
    values = [cell.result.perplexity[text].value for cell in cells]
    ink, low, high = colour(report, cells[0]), min(values), max(values)
    ax.plot((low, high), (height, height), color=ink, linewidth=1.6, alpha=0.6)
    for cell, value in zip(cells, values, strict=True):
        ax.plot(value, height, markersize=6, **marker(report, cell, ink))
    _note(ax, significant(high), (high, height), (7, 0), ha="left", va="center")
    if low < high:
        _note(ax, significant(low), (low, height), (-7, 0), ha="right", va="center")


def _dense(ax: "Axes", cells: Sequence[CellReport], text: str) -> None:
    for value in (cell.result.perplexity[text].value for cell in cells):
        ax.axvline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        top = blended_transform_factory(ax.transData, ax.transAxes)
        _note(ax, f"dense {significant(value)}", (value, 1), (0, 3), xycoords=top, ha="center")


def _note(ax: "Axes", note: str, place: tuple[float, float], shift: tuple[float, float], **settings: Any) -> None:
    ax.annotate(note, place, shift, textcoords="offset points", fontsize=8, **settings)


def _scale(ax: "Axes", values: Sequence[float]) -> None:
    """Room for the notes beside the extremes; from a ratio of LOG_FROM on, a logarithmic axis with plain numbers."""
    low, high = min(values), max(values)
    if high < LOG_FROM * low:
        room = 0.2 * (high - low) or 0.2 * high
        ax.set_xlim(low - room, high + room)
        ax.set_xlabel("Perplexity")
        return
    ax.set_xscale("log")
    room = (high / low) ** 0.14
    ax.set_xlim(low / room, high * room)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("Perplexity, log scale")
