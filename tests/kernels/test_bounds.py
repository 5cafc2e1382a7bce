"""The compiled kernels once more, with every access to an array checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = (
    "cpu_common",
    "swaps",
    "best_swaps",
    "wide_swaps",
    "block_moves",
    "partial_refit_swaps",
    "refit_swaps",
    "relaxed_swaps",
    "frank_wolfe",
)


@pytest.mark.slow
def test_no_kernel_leaves_its_arrays():
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1"}
    files = [HERE / f"test_{name}.py" for name in KERNELS]
    chosen = (
        "-m",
        "not slow",
        "-k",
        "awkward or degenerate or threads or backend or brute_force",
        "-p",
        "no:cacheprovider",
    )
    words = [sys.executable, "-m", "pytest", *files, *chosen]
    ended = subprocess.run(words, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:]
