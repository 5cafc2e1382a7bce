"""Text of users as it is shown in Markdown: names, attributions and paths, never as markup."""

import re

_MARKUP = re.compile(r"[\\`*|~$\[\]]|(?<=\])\(|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word is none
_SPACES = re.compile(r"[^\S\N{NO-BREAK SPACE}]+")


def escaped(text: str) -> str:
    """Return a text on one line, with every sign that Markdown or HTML would read escaped.

    Runs of white space become one space; no-break spaces stay. The text may stand in a paragraph, a list, a table or a
    heading, after at least one other character of its line.
    """
    line = _MARKUP.sub(r"\\\g<0>", _SPACES.sub(" ", text).strip())
    return line.replace("&", "&amp;").replace("<", "&lt;")
