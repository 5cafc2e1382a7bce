"""The subcommands of ``prunelib``; see ``prunelib NAME --help``."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from prunelib.errors import PruneError


@contextlib.contextmanager
def one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Turn a user error inside the ``with`` block into one line and exit status 2."""
    try:
        yield
    except PruneError as error:
        parser.exit(2, f"error: {error}\n")


def search_path() -> str:
    """Return the variable PATH with this Python's commands first: its environment may not be activated."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
