"""The picture of README.md: perplexity of the default model, pruned by four methods, from the committed report.

python docs/picture.py        # writes docs/pages/images/perplexity.svg
"""

import io
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from parts.committed import PATTERNS, dense
from parts.methods import of_method

PICTURE = Path(__file__).parent / "pages" / "images" / "perplexity.svg"
BARS = {  # label: method in parts.methods.METHODS, colour
    "Wanda": ("Wanda", "#e69f00"),
    "+ SparseSwaps": ("SparseSwaps, optimum", "#56b4e9"),
    "+ refit swaps": ("swaps, refit swaps", "#009e73"),
    "+ block reconstruction": ("swaps, refit swaps, blocks reconstructed", "#cc79a7"),
}
COLUMN = "perplexity_wikipedia"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prunelib",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 10.5,
    "axes.titlesize": "medium",
    "figure.titlesize": "medium",
    **{f"axes.spines.{side}": False for side in ("top", "right", "bottom", "left")},
}


def svg() -> str:
    """Return the picture: a panel of bars for each pattern, the dense model as a line."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 2.8), layout="constrained")
        line = dense("methods/results.csv", COLUMN)
        figure.suptitle(f"Perplexity on Wikipedia; dense model: {line:.1f}")
        for axes, pattern in zip(figure.subplots(2, sharex=True), ("row60", "nm24"), strict=True):
            _draw_bars(axes, pattern, line)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        return stream.getvalue()


def _draw_bars(axes: Axes, pattern: str, line: float) -> None:
    values = [fmean(of_method(method, pattern, COLUMN)) for method, _ in BARS.values()]
    bars = axes.barh(list(BARS), values, color=[colour for _, colour in BARS.values()])
    axes.bar_label(bars, fmt="%.0f", padding=6)
    axes.axvline(line, color="black", linestyle="--", linewidth=1)
    axes.set_title(PATTERNS[pattern], loc="left", fontweight="bold")
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.invert_yaxis()


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
