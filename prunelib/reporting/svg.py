"""SVG elements as text, and the style that the page and the files of figures share, for light and dark screens."""

from collections.abc import Iterable

from markupsafe import escape

COLOURS = {
    "paper": ("#ffffff", "#16191d"),
    "ink": ("#24292f", "#e2e6ea"),
    "muted": ("#5b6470", "#9aa4ae"),
    "line": ("#d8dee4", "#343b43"),
    "mask": ("#0072b2", "#58a6f0"),
    "updated": ("#b84c00", "#f0883e"),
}
"""Light and dark; ``mask`` and ``updated`` after Okabe and Ito, told apart by colour-blind eyes, 4.5:1 on the paper."""

WIDTH = 400
"""Width of a panel: on a phone of 390 px it is shown at 0.89 of its size, so that its text has more than 11 px."""
FONT = 13
_CHARACTER = 0.6  # mean width of a character in a wide font, in font sizes

RULES = f"""
.panel text {{ font: {FONT}px system-ui, "Helvetica Neue", Arial, sans-serif; fill: var(--ink); }}
.panel .title {{ font-weight: 600; }}
.panel .label {{ paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }}
.panel .muted {{ fill: var(--muted); }}
.panel .end {{ text-anchor: end; }}
.panel .middle {{ text-anchor: middle; }}
.panel path, .panel line {{ fill: none; stroke: var(--line); }}
.panel .dense {{ stroke: var(--muted); stroke-dasharray: 4 3; }}
.panel .mask {{ fill: var(--mask); stroke: var(--mask); }}
.panel .updated {{ fill: var(--updated); stroke: var(--updated); }}
.panel .unrefined {{ fill: var(--paper); stroke: var(--mask); }}
.panel path.frontier {{ fill: none; stroke-width: 1.5; opacity: .55; }}
.panel rect.mask, .panel rect.updated {{ stroke: none; }}
""".strip()


def variables(scheme: int) -> str:
    """Return the colours as CSS variables: of the light scheme for 0, of the dark for 1."""
    return " ".join(f"--{name}: {pair[scheme]};" for name, pair in COLOURS.items())


def tag(name: str, *children: str, **attributes: str | float | None) -> str:
    """Return an element; ``_`` in an attribute's name stands for ``-``, and None leaves the attribute out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(children)
    return f"<{name}{given}>{inside}</{name}>" if inside else f"<{name}{given}/>"


def _text(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{round(value, 1):g}"


def text(x: float, y: float, words: str, class_: str | None = None, **attributes: str | float) -> str:
    """Return a line of text at a place."""
    return tag("text", escape(words), x=x, y=y, class_=class_, **attributes)


def width_of(words: str) -> float:
    """Return about the width of a line of text: the fonts are those of the reader."""
    return len(words) * _CHARACTER * FONT


def shortened(words: str, width: float) -> str:
    """Return a text that fits a width, with an ellipsis where it was cut."""
    most = int(width / (_CHARACTER * FONT))
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def panel(title: str, width: float, height: float, elements: Iterable[str]) -> str:
    """Return a panel of a figure with its title, for the page: it has no style of its own."""
    heading = text(0, FONT, title, "title")
    return tag(
        "svg",
        heading,
        *elements,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        class_="panel",
        style=f"min-width: {0.88 * width:.0f}px" if width > WIDTH else None,
        role="group",
        aria_label=title,
    )


def standalone(panels: Iterable[str], sizes: Iterable[tuple[float, float]]) -> str:
    """Return a file with some panels below each other, in the colours of the reader's screen."""
    placed, top, widest = [], 0.0, 0.0
    for each, (width, height) in zip(panels, sizes, strict=True):
        placed.append(each.replace("<svg", f'<svg y="{top:g}" width="{width:g}" height="{height:g}"', 1))
        top, widest = top + height + FONT, max(widest, width)
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(1)} }} }}"
    style = tag("style", f"\n:root {{ {variables(0)} background: var(--paper); }}\n{dark}\n{RULES}\n")
    return (
        tag(
            "svg",
            style,
            *(f"\n{each}" for each in placed),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {widest:g} {top:g}",
            width=widest,
            height=top,
        )
        + "\n"
    )
