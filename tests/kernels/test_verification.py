"""What is called optimal is: brute force in more than float64 finds no swap beyond the stated bound."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import swap_pairs, swapped
from strategies import PATTERNS, PER_LAYER, Problem, problem, problems

from prunelib import PerLayer, PerRow, refiners, select, sparseswaps, wanda
from prunelib.kernels import verification
from prunelib.kernels.scaling import equilibrate
from prunelib.kernels.verification import ROUNDING_SHARE, SHARE
from prunelib.methods import registry
from prunelib.runtime.compute import Compute

METHODS = registry.methods(refiners)
SWAPPING = ["sparseswaps", "block_moves", "row_exchange"]


def longest(tensor):
    return tensor.double().numpy().astype(np.longdouble)


def gain_beyond_bound(p, mask, row):
    """By how much the best swap of a row lowers its loss, less what the claim allows."""
    w, G, m = longest(p.weight[row]), longest(p.gram), mask[row].numpy()
    group = p.pattern.swap_columns(len(w))

    def loss(m):
        e = np.where(m, 0, w)
        return e @ G @ e

    before, pruned = loss(m), (np.abs(np.where(m, 0, w)) * np.sqrt(np.diag(G))).sum()
    best = max((before - loss(swapped(m, u, j)) for u, j in swap_pairs(m, group)), default=0)
    return best - SHARE * before - ROUNDING_SHARE * len(w) * pruned**2


@st.composite
def stretched(draw, patterns):
    """A layer of which some weights are replaced by ones of quite another size."""
    p = draw(problems(max_inputs=12, patterns=patterns))
    weight = p.weight.clone()
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, weight.numel() - 1))
        weight.view(-1)[place] *= 10.0 ** draw(st.integers(-25, 30))
    return replace(p, weight=weight.clamp(-1e35, 1e35))


def refined(name, p, compute):
    method = METHODS[name]
    return method.refine(p.weight, p.gram, p.mask, p.pattern, method.settings(), compute=compute)


def assert_claims_hold(p, found):
    for row in found.optimal.nonzero()[:, 0].tolist():
        assert gain_beyond_bound(p, found.mask, row) <= 0


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("name", SWAPPING)
@settings(max_examples=150)
@given(st.data())
def test_no_swap_improves_a_row_that_is_called_optimal(name, reference, data):
    fitting = [pattern for pattern in (*PATTERNS, *PER_LAYER) if METHODS[name].supports(pattern)]
    p = data.draw(stretched(fitting))
    assert_claims_hold(p, refined(name, p, Compute(reference=reference)))


@settings(max_examples=100)
@given(stretched(PATTERNS), st.integers(1, 3))
def test_a_limit_of_swaps_is_no_proof(p, most):
    settings = METHODS["sparseswaps"].settings(max_swaps=most)
    assert_claims_hold(p, sparseswaps(p.weight, p.gram, p.mask, p.pattern, settings))


def layer(inputs=64, rows=8):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    gram = x.T @ x
    weight, pattern = torch.randn(rows, inputs, generator=generator) / 8, PerRow(sparsity=0.5)
    return Problem(weight, (gram + gram.T) / 2, select(wanda(weight, gram), pattern), pattern)


def test_every_row_of_an_ordinary_layer_is_proven():
    p = layer()
    assert sparseswaps(p.weight, p.gram, p.mask, p.pattern).optimal.all()


@pytest.mark.parametrize("huge", [1e15, 1e20, 1e30])
@pytest.mark.parametrize("kept", [False, True])
def test_a_weight_beside_which_the_others_vanish_proves_nothing(huge, kept):
    p = layer()
    p.weight[:, 3] = huge
    if kept:
        p = replace(p, mask=select(wanda(p.weight, p.gram), p.pattern))
    assert_claims_hold(p, sparseswaps(p.weight, p.gram, p.mask, p.pattern))


def test_rows_without_a_loss_are_optimal():
    p = layer()
    p.weight[:4] = 0
    found = sparseswaps(p.weight, torch.zeros_like(p.gram), p.mask, p.pattern)
    assert found.optimal.all()
    assert sparseswaps(p.weight, p.gram, p.mask, p.pattern).optimal.all()


def test_a_row_that_keeps_nothing_has_no_swap():
    weight, gram = torch.tensor([[1.0, -0.9999], [100.0, 100.0]]), torch.ones(2, 2)
    pattern = PerLayer(sparsity=0.5)
    mask = select(wanda(weight, gram), pattern)
    assert not mask[0].any()
    for name in ("sparseswaps", "row_exchange"):
        found = METHODS[name].refine(weight, gram, mask, pattern)
        assert found.optimal[0]
        assert torch.equal(found.mask, mask)


@pytest.mark.parametrize("strip", [1, 3])
def test_a_false_claim_is_found_in_any_strip(strip, monkeypatch):
    p = problem(0, PATTERNS[1], rows=200, inputs=8, tokens=30)
    swapped_ = sparseswaps(p.weight, p.gram, p.mask, p.pattern, METHODS["sparseswaps"].settings(max_swaps=1))
    scaled = equilibrate(p.weight, p.gram)
    monkeypatch.setattr(verification, "_STRIP", strip)
    holds = verification._no_swap_improves(scaled.weight, scaled.gram, swapped_.mask, group=8)
    expected = [gain_beyond_bound(p, swapped_.mask, row) <= 0 for row in range(200)]
    assert holds.tolist() == expected
    assert len(set(expected)) == 2
