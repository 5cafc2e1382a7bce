"""A Markdown table of all methods from their own descriptions, printed or put into README.md."""

from pathlib import Path
from typing import Any

from prunelib import block_refiners, refiners, warmstarts
from prunelib.errors import ArtifactError
from prunelib.masks.patterns import EXAMPLES
from prunelib.methods import registry
from prunelib.methods.contract import Method
from prunelib.runtime import store

README = Path("README.md")
START, END = "<!-- methods -->\n", "<!-- /methods -->"
_KINDS = {"warm start": warmstarts, "refiner": refiners, "block refiner": block_refiners}
_HEADINGS = ("", "name", "what it does", "patterns", "kept weights", "source")


def table() -> str:
    """Return the table: warm starts, refiners and block refiners, each sorted by name."""
    lines = [_line(_HEADINGS), "|" + "---|" * len(_HEADINGS)]
    for kind, package in _KINDS.items():
        for index, (name, method) in enumerate(registry.methods(package).items()):
            lines.append(_line(("" if index else kind, f"`{name}`", *described(method))))
    return "\n".join(lines) + "\n"


def described(method: Method[Any]) -> tuple[str, ...]:
    """Return what a method does, its patterns, whether it updates kept weights, and its source."""
    kinds = [example.kind for example in EXAMPLES if method.supports(example)]
    patterns = "all" if len(kinds) == len(EXAMPLES) else ", ".join(f"`{kind}`" for kind in kinds)
    return method.summary, patterns, "updated" if method.updates_weights else "the model's", method.source


def _line(entries: tuple[str, ...]) -> str:
    escaped = (entry.replace("|", "\\|") for entry in entries)
    return "|" + "|".join(f" {entry} " if entry else " " for entry in escaped) + "|"


def shown_in(text: str) -> str:
    """Return the part of a text between the markers.

    Raises
    ------
    ArtifactError
        If the text does not contain each marker exactly once, in order.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ArtifactError(f"{README}: expected {START.strip()} and, after it, {END}, once each on lines of their own")
    return text.partition(START)[2].partition(END)[0]


def write() -> None:
    """Replace the part of README.md between the markers by the table; raises as :func:`shown_in`."""
    text = README.read_text(encoding="utf-8")
    store.write_text(README, text.replace(f"{START}{shown_in(text)}{END}", f"{START}{table()}{END}"))
