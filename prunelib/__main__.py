"""The command ``prunelib``: each module of :mod:`prunelib.cli` is a subcommand of the same name."""

import argparse
import ast
import importlib
import pkgutil
import sys
from pathlib import Path

from prunelib import __version__, cli

_INSTALL = "pip install 'prunelib[workflow,evaluate]'"


def main() -> None:
    """Run the subcommand named on the command line with the remaining arguments."""
    found = _summaries()
    parser = argparse.ArgumentParser(
        prog="prunelib",
        description="Choose which weights of a language model to remove, and refine that choice.",
        epilog="\n".join(["commands:", *(f"  {name:<9} {summary}" for name, summary in found.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"prunelib {__version__}")
    parser.add_argument("command", choices=found, metavar="command", help="one of those below; each has a --help")
    command = parser.parse_args(sys.argv[1:2]).command
    sys.argv[:2] = [f"prunelib {command}"]
    try:
        importlib.import_module(f"prunelib.cli.{command}").main()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "prunelib":
            raise
        parser.exit(2, f"error: {command} needs {error.name}, which is not installed: {_INSTALL}\n")


def _summaries() -> dict[str, str]:
    """Return the first paragraph of each command's docstring, by name, without importing the command."""
    (folder,) = cli.__path__
    sources = {module.name: Path(folder, f"{module.name}.py") for module in pkgutil.iter_modules([folder])}
    documented = {name: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for name, path in sources.items()}
    return {name: (text or "").partition("\n\n")[0].replace("\n", " ") for name, text in documented.items()}


if __name__ == "__main__":
    main()
