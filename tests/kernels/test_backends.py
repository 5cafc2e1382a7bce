"""Which backend is chosen, and what is said where the fast one cannot be used."""

import subprocess
import sys

import pytest
import torch
from compilers import forbid

from prunelib.kernels import backend
from prunelib.kernels.swaps import cpu
from prunelib.kernels.swaps import reference as swaps
from prunelib.runtime.compute import AUTO, Compute


def test_without_triton_one_warning_names_the_loss(monkeypatch):
    forbid(monkeypatch, "triton")
    with pytest.warns(UserWarning, match=r"triton cannot be used .*: swaps run as plain torch"):
        assert backend(torch.device("cuda"), "swaps", AUTO) is swaps


WITHOUT_COMPILERS = """
import sys
import warnings

sys.modules["numba"] = sys.modules["triton"] = None

import torch

from prunelib import PerRow, select, sparseswaps

weight = torch.randn(4, 12)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    refined = sparseswaps(weight, torch.eye(12), select(weight.abs(), PerRow(sparsity=0.5)), PerRow(sparsity=0.5))
assert refined.optimal.all()
assert [str(each.message).partition(" cannot be used")[0] for each in told] == ["numba"]
assert "swaps run as plain torch, hundreds of times slower" in str(told[0].message)
"""


def test_without_compilers_the_package_works_and_warns_once():
    words = [sys.executable, "-c", WITHOUT_COMPILERS]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_a_module_of_this_project_that_is_not_there_is_no_missing_compiler():
    with pytest.raises(ModuleNotFoundError, match="no_such_operation"):
        backend(torch.device("cpu"), "no_such_operation", AUTO)


def test_other_devices_get_the_plain_backend():
    assert backend(torch.device("meta"), "swaps", AUTO) is swaps


def test_the_plain_backend_can_be_asked_for():
    assert backend(torch.device("cpu"), "swaps", AUTO) is cpu
    assert backend(torch.device("cpu"), "swaps", Compute(reference=True)) is swaps
