"""Run a stage's script, and write the seconds that it spends in checksums and hashes of artifacts.

    python timed_checksums.py SECONDS.txt stages/refine.py --model ...

For benchmarks/speed/stages.py.
"""

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunelib.runtime import hashing

CHECKSUMS = ("sha256_file", "sha256_json", "checksum", "checksum_file")


def timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The function, which adds the seconds of each call."""

    def call(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent.append(time.perf_counter() - started)

    return call


if __name__ == "__main__":
    target, script, *arguments = sys.argv[1:]
    spent: list[float] = []
    for name in CHECKSUMS:
        setattr(hashing, name, timed(getattr(hashing, name), spent))
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        Path(target).write_text(repr(sum(spent)))
