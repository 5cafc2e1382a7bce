"""What a user runs beside the stages: ``prunelib NAME --help``."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from prunelib.errors import PruneError


@contextlib.contextmanager
def one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """While open, a user's fault prints one line and exits with status 2."""
    try:
        yield
    except PruneError as error:
        parser.exit(2, f"error: {error}\n")


def search_path() -> str:
    """The variable PATH with the commands of this Python before others: its environment may not be activated."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
