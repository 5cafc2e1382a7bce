"""Rows that need more scans than a backend makes are returned as they are by then, not marked optimal."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from strategies import problem
from triton_device import CUDA, DEVICE

from prunelib import NOfM, PerRow
from prunelib.algebra.objective import row_losses
from prunelib.kernels.results import collect_rows
from prunelib.kernels.scaling import equilibrate
from prunelib.refiners.refit_swaps import standardise

OPERATIONS = ("swaps", "block_moves", "partial_refit_swaps", "refit_swaps")


def one_scan(backend, operation, device="cpu"):
    """What a module makes of a layer whose rows need many scans, and the losses of the weights that it leaves."""
    pattern = NOfM(keep=4, group=8) if operation == "block_moves" else PerRow(sparsity=0.6)
    p = problem(21, pattern, rows=3, inputs=24, tokens=60)
    mask = p.mask.to(device)
    if operation in {"swaps", "block_moves"}:
        scaled = equilibrate(p.weight.to(device), p.gram)
        if operation == "swaps":
            parts = backend.swap_to_optimum(scaled.weight, scaled.gram, mask, 24, 1)
        else:
            parts = backend.move_to_optimum(scaled.weight, scaled.gram, mask, pattern.groups(3, 24), 1)
        results = collect_rows(parts, p.mask)
        return p, results, row_losses(scaled.weight.cpu(), scaled.gram.cpu().double(), results.mask)
    layer = standardise(p.weight.to(device), p.gram.to(device))
    start = {"start": layer.weight * mask} if operation == "partial_refit_swaps" else {}
    found = list(backend.swap_to_optimum(layer.weight, layer.gram, mask, **start, group=24, threads=1))
    error = layer.weight.cpu() - torch.cat([x for _, _, x in found]).cpu()
    results = collect_rows([(rows, results) for rows, results, _ in found], p.mask)
    return p, results, ((error @ layer.gram.cpu().double()) * error).sum(dim=1)


def check(p, results, losses):
    assert (results.sweeps <= 2).all()  # best swaps look once more, after the last one
    assert not results.optimal.any()
    assert (results.swaps > 0).all()
    assert torch.equal(results.mask.sum(dim=1), p.mask.sum(dim=1))
    assert (results.mask != p.mask).any()
    torch.testing.assert_close(results.loss_after, losses, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["reference", CUDA])
def test_a_row_that_needs_more_scans_than_the_limit_says_so(kind, operation, monkeypatch):
    if kind == "cuda":
        pytest.importorskip("triton", reason="triton is not installed")
        if operation == "refit_swaps":
            pytest.skip("on the processor only")
    backend = importlib.import_module(f"prunelib.kernels.{operation}.{kind}")
    monkeypatch.setattr(backend, "MAX_SWEEPS", 1)
    check(*one_scan(backend, operation, DEVICE if kind == "cuda" else "cpu"))


COMPILED = """
import importlib

from prunelib.kernels import interface

interface.MAX_SWEEPS = 1  # compiled into what follows

from kernels.test_limits import OPERATIONS, check, one_scan

for operation in OPERATIONS:
    check(*one_scan(importlib.import_module(f"prunelib.kernels.{operation}.cpu"), operation))
"""


@pytest.mark.slow
def test_compiled_kernels_say_so_too(tmp_path):
    paths = [str(Path(__file__).parents[1]), *sys.path]  # of this module, as ``kernels.test_limits``
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run(
        [sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
