"""What `mkdocs build` does beside its plugins: help of the command line as a page, roles of docstrings as code."""

import re
import subprocess
import sys
from typing import Any

from mkdocs.structure.files import File, Files

_COMMANDS = "reference/commands.md"
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):<code>~?([^<]+)</code>")


def on_files(files: Files, config: Any) -> Files:
    """Add the page of the command line, which typer writes."""
    words = [sys.executable, "-m", "typer", "prunelib.cli.app", "utils", "docs", "--name", "prunelib"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    files.append(File.generated(config, _COMMANDS, content=done.stdout))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Show the roles of docstrings as code, by the last part of the name."""
    return _ROLE.sub(lambda role: f"<code>{role[1].rpartition('.')[2]}</code>", html)
