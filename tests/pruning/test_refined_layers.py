"""The record of a refined layer."""

import pytest
import torch
from strategies import PATTERNS, problem

from prunelib import PerRow
from prunelib.algebra.objective import refit_losses
from prunelib.methods.contract import NOTHING_ELSE, silent
from prunelib.model.layers import Layer
from prunelib.pruning.chains import Chain
from prunelib.pruning.refined_layers import LayerInputs, refine_layer
from prunelib.refiners.least_squares import LeastSquares


def refine(weight, gram, mask, pattern, chain):
    rows, inputs = weight.shape
    name = "model.layers.0.mlp.up_proj"
    shape = {"rows": rows, "inputs": inputs, "transposed": False}
    layer = Layer(name=name, kind="up_proj", block=0, tensor=f"{name}.weight", gram=name, **shape)
    known = LayerInputs(gram=gram, extra=NOTHING_ELSE, energy=1.0)
    return refine_layer(layer, weight, known, mask, pattern, chain, silent, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_error_is_that_of_the_weights_that_are_stored(dtype):
    """Of few tokens the least-squares weights cancel to errors far below the rounding of half precision."""
    p = problem(3, PATTERNS[2], rows=6, inputs=64, tokens=20)
    weight = p.weight.to(dtype)
    refined = refine(weight, p.gram, p.mask, p.pattern, Chain(chain=("sparseswaps", "refit_swaps")))
    assert refined.weight.dtype == dtype
    stored = float(refit_losses(weight, p.gram, refined.weight).sum())
    assert refined.record.loss_after == pytest.approx(stored, rel=1e-9)
    assert refined.record.steps[-1].loss_after == refined.record.loss_after


@pytest.mark.parametrize("seed", range(20))
def test_rounding_raises_no_error(seed):
    """What is pruned is so small beside what is kept that rounding the latter costs more than it gains."""
    p = problem(seed, PerRow(sparsity=0.5), rows=8, inputs=16, tokens=100)
    weight = torch.where(p.mask, p.weight, p.weight / 1000).bfloat16()
    refined = refine(weight, p.gram, p.mask, p.pattern, LeastSquares())
    assert refined.record.loss_after <= refined.record.loss_before


def test_a_weight_that_its_dtype_cannot_hold_is_not_updated():
    weight, mask = torch.tensor([[40000, 3, 40000, 5]], dtype=torch.float16), torch.tensor([[True, True, False, False]])
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    x[:, 2] = x[:, 0]
    refined = refine(weight, x.T @ x, mask, PerRow(sparsity=0.5), LeastSquares())
    assert torch.equal(refined.weight, weight.where(mask, 0))
