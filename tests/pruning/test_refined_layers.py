"""The record of a refined layer."""

import pytest
import torch
from strategies import PATTERNS, problem

from prunelib.algebra.objective import refit_losses
from prunelib.methods.contract import NOTHING_ELSE, silent
from prunelib.model.layers import Layer
from prunelib.pruning.chains import Chain
from prunelib.pruning.refined_layers import LayerInputs, refine_layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_error_is_that_of_the_weights_that_are_stored(dtype):
    """Of few tokens the least-squares weights cancel to errors far below the rounding of half precision."""
    p = problem(3, PATTERNS[2], rows=6, inputs=64, tokens=20)
    weight, name = p.weight.to(dtype), "model.layers.0.mlp.up_proj"
    layer = Layer(
        name=name, kind="up_proj", block=0, tensor=f"{name}.weight", gram=name, rows=6, inputs=64, transposed=False
    )
    chain = Chain(chain=("sparseswaps", "refit_swaps"))
    inputs = LayerInputs(gram=p.gram, extra=NOTHING_ELSE, energy=1.0)
    refined = refine_layer(layer, weight, inputs, p.mask, p.pattern, chain, silent, torch.device("cpu"))
    assert refined.weight.dtype == dtype
    stored = float(refit_losses(weight, p.gram, refined.weight).sum())
    assert refined.record.loss_after == pytest.approx(stored, rel=1e-9)
    assert refined.record.steps[-1].loss_after == refined.record.loss_after
