"""Benchmarks that cannot be run here run through at tiny sizes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_benchmark_for_gpus_runs_dry_and_finds_nothing_wrong():
    words = [sys.executable, "benchmarks/speed/gpu.py", "--dry"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "s in all" in ended.stdout
