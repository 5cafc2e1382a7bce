"""Which engine is chosen, and what is said where the fast one cannot be used."""

import sys

import pytest
import torch

from prunelib.kernels import engine
from prunelib.kernels.cpu import swaps as cpu
from prunelib.kernels.reference import refit_swaps, swaps
from prunelib.machine import machine


def test_without_triton_one_warning_names_the_loss(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "prunelib.kernels.cuda.swaps", raising=False)
    with pytest.warns(UserWarning, match=r"triton cannot be used .*: swaps run in plain torch"):
        assert engine(torch.device("cuda"), "swaps") is swaps


def test_an_operation_without_a_kernel_runs_in_plain_torch_and_says_so():
    with pytest.warns(UserWarning, match="refit_swaps run in plain torch"):
        assert engine(torch.device("cuda"), "refit_swaps") is refit_swaps


def test_other_devices_get_the_plain_engine():
    assert engine(torch.device("meta"), "swaps") is swaps


def test_the_machine_may_ask_for_the_plain_engine(monkeypatch):
    assert engine(torch.device("cpu"), "swaps") is cpu
    monkeypatch.setattr("prunelib.kernels.machine", lambda: machine().model_copy(update={"engine": "reference"}))
    assert engine(torch.device("cpu"), "swaps") is swaps
