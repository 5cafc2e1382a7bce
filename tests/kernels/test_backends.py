"""Which backend is chosen, and what is said where the fast one cannot be used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compilers import forbid

from prunelib.errors import StageError
from prunelib.kernels import backend
from prunelib.kernels.swaps import cpu
from prunelib.kernels.swaps import reference as swaps
from prunelib.runtime.compute import AUTO, Compute

ROOT = Path(__file__).parents[2]


def test_without_its_compiler_a_device_is_refused(monkeypatch):
    forbid(monkeypatch, "triton")
    with pytest.raises(StageError, match=r"^triton cannot be used .*PRUNELIB_BACKEND=reference$"):
        backend(torch.device("cuda"), "swaps", AUTO)
    assert backend(torch.device("cuda"), "swaps", Compute(reference=True)) is swaps


WITHOUT_COMPILERS = """
import sys

sys.modules["numba"] = sys.modules["triton"] = None

import torch

from prunelib import PerRow, select, sparseswaps
from prunelib.errors import StageError
from prunelib.runtime.compute import Compute

weight, pattern = torch.randn(4, 12), PerRow(sparsity=0.5)
given = weight, torch.eye(12), select(weight.abs(), pattern), pattern
assert sparseswaps(*given, compute=Compute(reference=True)).optimal.all()
try:
    sparseswaps(*given)
except StageError as error:
    assert str(error).startswith("numba cannot be used")
else:
    raise AssertionError("not refused")
"""


def test_without_compilers_the_reference_is_there_for_who_asks_for_it():
    words = [sys.executable, "-c", WITHOUT_COMPILERS]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]


NOWHERE_TO_CACHE = """
import torch

from prunelib.kernels import backend
from prunelib.runtime.compute import AUTO

print(backend(torch.device("cpu"), "swaps", AUTO).__name__)
"""


def test_without_a_folder_for_compiled_code_the_compiled_backend_stays(tmp_path):
    """As in many containers: a library and a home that cannot be written."""
    shutil.copytree(ROOT / "prunelib", tmp_path / "prunelib", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        (folder / "__pycache__").touch()  # a file where numba wants a folder
    given = {name: value for name, value in os.environ.items() if name not in {"NUMBA_CACHE_DIR", "PRUNELIB_BACKEND"}}
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME"), f"{os.devnull}/home")
    environment = given | nowhere | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", NOWHERE_TO_CACHE]
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout == "prunelib.kernels.swaps.cpu\n", ended.stderr[-2000:]


def test_a_module_of_this_project_that_is_not_there_is_no_missing_compiler():
    with pytest.raises(ModuleNotFoundError, match="no_such_operation"):
        backend(torch.device("cpu"), "no_such_operation", AUTO)


def test_other_devices_get_the_plain_backend():
    assert backend(torch.device("meta"), "swaps", AUTO) is swaps


def test_the_plain_backend_can_be_asked_for():
    assert backend(torch.device("cpu"), "swaps", AUTO) is cpu
    assert backend(torch.device("cpu"), "swaps", Compute(reference=True)) is swaps
