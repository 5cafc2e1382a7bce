"""Inputs at which the project fails, one folder each; README.md says what is right.

A script ends with status 1 while its fault is there, with 0 once it is gone: then a test takes the place of its folder.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cases
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDERS = sorted(path.parent.name for path in HERE.glob("*/show.py"))


class BrokenScriptError(Exception):
    """A script that did not come to its verdict."""


@pytest.mark.xfail(reason="open", raises=AssertionError, strict=True)
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_fault_is_gone(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, HERE / folder / "show.py"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    verdict = (done.stdout.strip().splitlines() or [""])[-1]
    if (done.returncode, verdict) not in {(0, "fixed"), (1, "FAULT")}:
        raise BrokenScriptError(done.stdout[-1000:] + done.stderr[-2000:])
    assert verdict == "fixed", done.stdout[-1000:]
