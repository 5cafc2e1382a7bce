"""What a user runs beside the stages: ``prunelib NAME --help``."""

import argparse
import contextlib
from collections.abc import Iterator

from prunelib.errors import PruneError


@contextlib.contextmanager
def one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """While open, a user's fault prints one line and exits with status 2."""
    try:
        yield
    except PruneError as error:
        parser.exit(2, f"error: {error}\n")
