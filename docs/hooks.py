"""What `mkdocs build` does in addition to its plugins: generated parts, the page of the command line, roles as code.

A page has ``{{ NAME }}`` for a table of :mod:`tables`, or ``{{ NAME arguments }}`` for a part made here.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import settings
import tables
from parts.committed import ROOT
from parts.methods import figures

from prunelib.cli import methods

_COMMANDS = "reference/commands.md"
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):<code>~?([^<]+)</code>")
_PART = re.compile(r"^\{\{ (\w+) ?(.*?) \}\}$", re.MULTILINE)


def _example(name: str) -> str:
    """Show a file of examples/."""
    return f'```python title="examples/{name}"\n{(ROOT / "examples" / name).read_text(encoding="utf-8")}```\n'


def _method(words: str) -> str:
    return settings.method(*words.split())


PARTS = {
    "example": _example,
    "figures": figures,
    "machine": lambda _: settings.machine(),
    "method": _method,
    "methods": lambda _: methods.table(),
    "params": lambda _: settings.params(),
} | {name: lambda _, made=made: made() for name, made in tables.TABLES.items()}


def on_files(files: Files, config: Any) -> Files:
    """Add the page of the command line, which typer writes."""
    words = [sys.executable, "-m", "typer", "prunelib.cli.app", "utils", "docs", "--name", "prunelib"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    files.append(File.generated(config, _COMMANDS, content=done.stdout))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated parts into a page; an unknown name ends the build."""
    return _PART.sub(lambda part: PARTS[part[1]](part[2]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Show the roles of docstrings as code, by the last part of the name."""
    return _ROLE.sub(lambda role: f"<code>{role[1].rpartition('.')[2]}</code>", html)
