"""Panels drawn by matplotlib as small SVG, whose colours, links and tooltips work in the page."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunelib.reporting.style import COLOURS, FONT, RULES, STYLE, WIDTH, variables

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"font-(size|family): [^;]*(; )?")  # those of the page
_LONG = re.compile(r"\d+\.\d{3,}")
_SPACE = re.compile(r"\s*\b([MLQCz])\b\s*")  # around the commands of a path
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}
_COLOUR = re.compile("|".join(_VARIABLES))

ET.register_namespace("", _SVG.strip("{}"))  # written without a prefix


@dataclass(frozen=True)
class Panel:
    """A panel of a figure as an SVG element, and its size in pixels."""

    svg: str
    width: float
    height: float


def draw_panel(
    name: str,
    title: str,
    paint: Callable[[Axes], None],
    tooltips: Mapping[str, str],
    *,
    finish: Callable[[Axes], None] | None = None,
    height: float,
    width: float = WIDTH,
) -> Panel:
    """Draw a panel.

    Parameters
    ----------
    name
        Name of its figure: links of the panel have the ids ``NAME-CELL``.
    title
        Its title.
    paint
        Draws on the axes, under the style of all figures.
    tooltips
        What links show, by the full name of the cell to which they lead, :func:`link_to`.
    finish
        Draws what needs the final places of marks.
    width, height
        In pixels.
    """
    with mpl.rc_context(STYLE | {"svg.hashsalt": f"{name} {title}"}):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        figure.patch.set_visible(False)
        figure.suptitle(title, x=0, ha="left")
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        paint(axes)
        if finish:
            figure.draw_without_rendering()  # lays out the axes
            finish(axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg")
    root = ET.fromstring(stream.getvalue())  # noqa: S314 - our own figure
    _tidy(root)
    _annotate(root, name, tooltips)
    root.attrib = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "class": "panel",
        **({"style": f"min-width: {0.88 * width:.0f}px"} if width > WIDTH else {}),
        "role": "group",
        "aria-label": title,
    }
    return Panel(ET.tostring(root, encoding="unicode").replace("\n", ""), width, height)


def link_to(cell: str) -> str:
    """Return the address of a cell's row in the page, for ``set_urls`` of marks."""
    return f"#{cell}"


def _tidy(root: ET.Element) -> None:
    """Remove what the page doesn't use: metadata, ids, fonts, space; round numbers, name colours by their variables."""
    for element in list(root):
        if element.tag == f"{_SVG}metadata" or element.find(f"{_SVG}style") is not None:
            root.remove(element)
    for element in root.iter():
        element.text, element.tail = ((part or "").strip() or None for part in (element.text, element.tail))
        if element.tag == f"{_SVG}g":
            element.attrib.pop("id", None)
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
        for key in ("d", "x", "y", "style", "transform"):
            if key in element.attrib:
                element.set(key, _short(element.attrib[key]))
        if "d" in element.attrib:
            element.set("d", _SPACE.sub(r"\1", element.attrib["d"]).strip())
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]


def _short(value: str) -> str:
    rounded = _LONG.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), _FONT.sub("", value))
    return _COLOUR.sub(lambda colour: _VARIABLES[colour[0]], rounded)


def _annotate(root: ET.Element, name: str, tooltips: Mapping[str, str]) -> None:
    """Give links an id and a tooltip; they are no stops of the keyboard, for the table has the same links."""
    for link in root.iter(f"{_SVG}a"):
        cell = link.get("href", "").removeprefix("#")
        link.attrib = {"id": f"{name}-{cell}", "href": link_to(cell), "tabindex": "-1"}
        note = ET.Element(f"{_SVG}title")
        note.text = tooltips[cell]
        link.insert(0, note)


def standalone(panels: Sequence[Panel]) -> str:
    """Return a file with some panels below each other, in the colours of the reader's screen."""
    placed, top = [], 0.0
    for panel in panels:
        place = f'<svg y="{top:g}" width="{panel.width:g}" height="{panel.height:g}"'
        placed.append(panel.svg.replace("<svg", place, 1))
        top += panel.height + FONT
    widest = max(panel.width for panel in panels)
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(1)} }} }}"
    style = f"\n:root {{ {variables(0)} background: var(--paper); }}\n{dark}\n{RULES}\n"
    size = f'viewBox="0 0 {widest:g} {top:g}" width="{widest:g}" height="{top:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{escape(style)}</style>'
    return "\n".join([head, *placed, "</svg>\n"])
