"""The library that runs must be the project's."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import prunelib
from prunelib.errors import StageError
from prunelib.runtime.code import read_code
from prunelib.workflow.own_library import require_own_library

ROOT = Path(__file__).parents[2]
RUNNING = Path(prunelib.__file__).resolve().parent


def test_another_library_in_the_working_directory_is_refused(tmp_path, monkeypatch):
    (tmp_path / "prunelib").mkdir()
    (tmp_path / "prunelib" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=re.escape(f"{RUNNING} runs, but the project's library is {tmp_path}")):
        require_own_library()


@pytest.mark.parametrize("link", [True, False])
def test_the_one_that_runs_is_accepted_through_a_link_too_and_so_is_none(tmp_path, monkeypatch, link):
    if link:
        (tmp_path / "prunelib").symlink_to(RUNNING, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    require_own_library()


def test_a_stage_runs_with_the_library_beside_it_whichever_is_installed(tmp_path):
    for name in ("stages", "prunelib"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    with (tmp_path / "prunelib" / "masks" / "packed.py").open("a") as stream:
        stream.write("\nONLY_HERE = True\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "stages.check"], cwd=tmp_path, env=environment, check=True)
    found = json.loads((tmp_path / "artifacts" / "code" / "refine.json").read_text())
    file = "prunelib/masks/packed.py"
    assert found[file] == read_code(tmp_path / file).identity != read_code(ROOT / file).identity
