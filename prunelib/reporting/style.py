"""The style of all figures: type, grid, colours of warm starts, markers of refiners; SVG with deterministic bytes."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunelib.reporting.records import Report
from prunelib.reporting.seeds import Row

INK = "#24292f"
PAPER = "#ffffff"
PALETTE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#d55e00",
    "#56b4e9",
)  # Okabe and Ito: safe for colour-blind eyes
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p")
WIDTH = 9.2  # inches
LEGEND_COLUMNS = 7

STYLE: dict[str, Any] = {
    "svg.hashsalt": "prunelib",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.6,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
}


def colour(report: Report, row: Row) -> str:
    """Return the colour of a row's warm start, the same in all figures of a report."""
    return PALETTE[report.warmstarts.index(row.cell.warmstart or "") % len(PALETTE)]


def marker(report: Report, row: Row, ink: str) -> dict[str, Any]:
    """Return the marker of a row's refiner in a colour, as arguments of ``plot``; hollow for unrefined masks."""
    refiners = list(dict.fromkeys(other.cell.refiner for other in report.cells if other.refined))
    form = MARKERS[refiners.index(row.cell.refiner) % len(MARKERS)] if row.refined else "o"
    return {"marker": form, "linestyle": "", "color": ink, "markerfacecolor": ink if row.refined else PAPER}


def warmstart_keys(report: Report, rows: Sequence[Row]) -> list[Line2D]:
    """Return the legend entries for the warm starts of some rows."""
    colours = {row.cell.warmstart: colour(report, row) for row in rows}
    return [
        Line2D([], [], color=ink, linewidth=4, label=report.label("warmstarts", name)) for name, ink in colours.items()
    ]


def refiner_keys(report: Report, rows: Sequence[Row]) -> list[Line2D]:
    """Return the legend entries for the refiners of some rows."""
    markers = {row.cell.refiner: marker(report, row, INK) for row in rows}
    return [Line2D([], [], **form, label=report.label("refiners", name)) for name, form in markers.items()]


def legend(figure: Figure, keys: Sequence[Line2D]) -> None:
    """Draw a legend above the figure, with entries in order line by line (matplotlib fills columns)."""
    columns = min(len(keys), LEGEND_COLUMNS)
    by_column = [key for column in range(columns) for key in keys[column::columns]]
    figure.legend(handles=by_column, loc="outside upper left", ncols=columns)


def heading(report: Report, model: str, text: str) -> str:
    """Return the title of a panel; it names the model only if the report has several."""
    named = report.label("models", model)
    return f"{named}: {text}" if len(report.models) > 1 else text


def svg(figure: Figure) -> str:
    """Return the figure as SVG, without the date and the name of the program."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return stream.getvalue()
