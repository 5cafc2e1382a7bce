"""The style of all figures: colours that follow the reader's screen, one size of type, panels that fit a phone."""

from typing import Any

COLOURS = {
    "paper": ("#ffffff", "#16191d"),
    "ink": ("#24292f", "#e2e6ea"),
    "muted": ("#5b6470", "#9aa4ae"),
    "line": ("#d8dee4", "#343b43"),
    "mask": ("#0072b2", "#58a6f0"),
    "updated": ("#b84c00", "#f0883e"),
    "blocks": ("#00795c", "#3cb896"),
}
"""Light and dark; the colours of marks after Okabe and Ito, told apart by colour-blind eyes, 4.5:1 on the paper."""

PAPER, INK, MUTED, LINE, MASK, UPDATED, BLOCKS = (light for light, _ in COLOURS.values())

WIDTH = 400
"""Width of a panel in pixels: on a phone of 390 px it is shown at 0.89 of its size, its text with more than 11 px."""
FONT = 13
_LONGEST = 24  # characters of a name

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # wider than the fonts of readers: what fits here fits there
    "font.size": FONT,
    "text.color": INK,
    "text.parse_math": False,
    "axes.titlesize": FONT,
    "axes.titlelocation": "left",
    "axes.titlecolor": MUTED,
    "axes.labelsize": FONT,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    **{f"axes.spines.{side}": False for side in ("top", "left", "right")},
    **{f"{axis}tick.{key}": value for axis in "xy" for key, value in (("color", LINE), ("labelcolor", MUTED))},
    **{f"{axis}tick.labelsize": FONT for axis in "xy"},
    "ytick.major.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "figure.titlesize": FONT,
    "figure.titleweight": "bold",
    "figure.dpi": 72,  # a point is a pixel
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.08,
}

RULES = f"""
.panel text {{ font-family: system-ui, "Helvetica Neue", Arial, sans-serif; font-size: {FONT}px; }}
.panel path, .panel use {{ stroke-linejoin: round; }}
""".strip()


def variables(scheme: int) -> str:
    """Return the colours as CSS variables: of the light scheme for 0, of the dark for 1."""
    return " ".join(f"--{name}: {pair[scheme]};" for name, pair in COLOURS.items())


def shortened(name: str) -> str:
    """Return a name that fits beside a figure, with an ellipsis where it was cut."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1].rstrip() + "…"
