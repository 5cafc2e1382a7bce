"""Compiled kernels on disk: used again by the next process, and never after a change of what they are made of."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prunelib.kernels import cpu_cache

ROOT = Path(__file__).parents[2]
CALLED = """
from prunelib.kernels.cpu_common import compiled


@compiled
def called(x):
    return {returned}
"""
CALLER = """
from prunelib.kernels.cpu_common import compiled
from prunelib.kernels.called import called


@compiled
def caller(x):
    return called(x)
"""
RUN = "from prunelib.kernels.caller import caller; print(caller(1.0), sum(caller.stats.cache_hits.values()))"


@pytest.fixture
def run(tmp_path):
    """Runs the caller in a new copy of the library; what it returned, and how often it had been compiled before."""

    def run_copy(name, returned, **more):
        copy = tmp_path / name
        shutil.copytree(ROOT / "prunelib", copy / "prunelib", ignore=shutil.ignore_patterns("__pycache__"))
        for module, source in (("caller", CALLER), ("called", CALLED.format(returned=returned))):
            (copy / "prunelib" / "kernels" / f"{module}.py").write_text(source)
        given = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"} | more
        ended = subprocess.run(
            [sys.executable, "-c", RUN], cwd=copy, env=given, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        value, hits = ended.stdout.split()
        return float(value), int(hits)

    return run_copy


def test_kernels_are_compiled_once_for_all_copies_and_anew_when_what_they_call_changes(run):
    assert run("first", "x + 1.0") == (2.0, 0)
    assert run("copy", "x + 1.0") == (2.0, 1)
    assert run("upgraded", "x + 2.0") == (3.0, 0)
    assert run("checked", "x + 1.0", NUMBA_BOUNDSCHECK="1") == (2.0, 0)


def test_a_user_without_a_home_gets_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cpu_cache.numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(cpu_cache.platformdirs, "user_cache_path", lambda _: Path("~/.cache/prunelib"))
    folder = cpu_cache._folder.__wrapped__()
    assert folder.is_dir()
    assert folder.is_absolute()
    assert not list(tmp_path.iterdir())
