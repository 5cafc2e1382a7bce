"""Equilibrated problems: the same losses, numbers of moderate size, in strips of any height."""

import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, problem, problems

from prunelib import row_losses
from prunelib.kernels import scaling
from prunelib.kernels.scaling import equilibrate


@settings(max_examples=100)
@given(problems())
def test_losses_are_those_of_the_layer_and_numbers_are_of_moderate_size(p):
    scaled = equilibrate(p.weight, p.gram)
    diagonal, largest = scaled.gram.diagonal(), scaled.weight.abs().amax(dim=1)
    assert ((diagonal == 0) | ((diagonal >= 0.5) & (diagonal <= 2))).all()
    assert ((largest == 0) | ((largest >= 0.5) & (largest < 1))).all()
    expected = row_losses(p.weight, p.gram, p.mask)
    energy = row_losses(p.weight.abs(), p.gram.abs(), p.mask)
    found = row_losses(scaled.weight, scaled.gram, p.mask) * scaled.loss_scale
    assert ((found - expected).abs() <= 1e-12 * energy).all()


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_strips_change_no_bit(degenerate, monkeypatch):
    p = problem(0, PATTERNS[1], rows=7, inputs=10, tokens=5, degenerate=degenerate)
    gram = p.gram + torch.rand(10, 10, generator=torch.Generator().manual_seed(1)).triu(1) * 1e-4 * p.gram.mean()
    whole = equilibrate(p.weight, gram)
    for strip in (1, 3):
        monkeypatch.setattr(scaling, "_STRIP", strip)
        assert all(torch.equal(one, two) for one, two in zip(equilibrate(p.weight, gram), whole, strict=True))
