"""The picture of README.md: perplexity of the default model, pruned by three methods, from the committed report.

python docs/picture.py        # writes docs/pages/images/perplexity.svg
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import tables

PICTURE = Path(__file__).parent / "pages" / "images" / "perplexity.svg"
BARS = {  # label: method in tables.METHODS, colour
    "Wanda": ("Wanda", "#e69f00"),
    "+ SparseSwaps": ("SparseSwaps, optimum", "#56b4e9"),
    "+ refit swaps": ("swaps, refit swaps", "#009e73"),
}
WIDTH, LEFT, STEP, BAR = 640, 150, 26, 18  # pixels


def svg() -> str:
    """Return the picture: a group of bars for each pattern, the dense model as a line."""
    column = "perplexity_wikipedia"
    groups = {
        tables.PATTERNS[pattern]: [fmean(tables.of_method(label, pattern, column)) for label, _ in BARS.values()]
        for pattern in ("row60", "nm24")
    }
    dense = tables.dense("methods/results.csv", column)
    scale = (WIDTH - LEFT - 60) / max(max(values) for values in groups.values())
    height = 40 + len(groups) * (30 + len(BARS) * STEP)
    line = LEFT + dense * scale
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
    return "\n".join(
        [
            f'{head} font-size="14" role="img" aria-label="Perplexity on Wikipedia">',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            f'<text x="{line + 6:.0f}" y="20">dense model: perplexity {dense:.1f} on Wikipedia</text>',
            *_bars(groups, scale),
            f'<line x1="{line:.0f}" x2="{line:.0f}" y1="8" y2="{height - 8}" stroke="#000000" stroke-dasharray="4 3"/>',
            "</svg>\n",
        ]
    )


def _bars(groups: dict[str, list[float]], scale: float) -> Iterator[str]:
    top = 34
    for pattern, values in groups.items():
        yield f'<text x="10" y="{top + 16}" font-weight="bold">{pattern}</text>'
        top += 24
        for (label, (_, colour)), value in zip(BARS.items(), values, strict=True):
            yield f'<text x="{LEFT - 8}" y="{top + 14}" text-anchor="end">{label}</text>'
            yield f'<rect x="{LEFT}" y="{top}" width="{value * scale:.0f}" height="{BAR}" fill="{colour}"/>'
            yield f'<text x="{LEFT + value * scale + 6:.0f}" y="{top + 14}">{value:.0f}</text>'
            top += STEP
        top += 6


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
