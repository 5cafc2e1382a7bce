"""The refiners as a user calls them."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, problem, problems

from prunelib import NOfM, SparseSwaps, pruning_error, refiners, registry, sparseswaps
from prunelib.errors import NumericalError, PatternError


@settings(max_examples=80, deadline=None)
@given(problems())
def test_refinement_never_raises_the_loss_and_keeps_every_count(p):
    for module in registry.methods(refiners).values():
        weight = p.weight.clone()
        refined = module.refine(p.weight, p.gram, p.mask, p.pattern)
        torch.testing.assert_close(p.weight, weight, rtol=0, atol=0)
        assert (refined.loss_after <= refined.loss_before).all()
        shape = (len(p.mask), -1, p.group)
        torch.testing.assert_close(refined.mask.view(shape).sum(-1), p.mask.view(shape).sum(-1))


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.label)
def test_losses_are_those_of_the_unscaled_layer(pattern):
    p = problem(7, pattern, rows=6, inputs=32, tokens=100)
    refined = sparseswaps(p.weight, p.gram, p.mask, pattern)
    G = ((p.gram + p.gram.T) / 2).numpy()
    np.testing.assert_allclose(refined.loss_before, oracles.losses(p.weight.numpy(), G, p.mask.numpy()), rtol=1e-9)
    np.testing.assert_allclose(refined.loss_after, oracles.losses(p.weight.numpy(), G, refined.mask.numpy()), rtol=1e-9)
    assert pruning_error(p.weight, p.gram, refined.mask) == pytest.approx(refined.loss_after.sum().item(), rel=1e-6)
    assert refined.optimal.all()


@pytest.mark.parametrize("pattern", [PATTERNS[1], NOfM(keep=2, group=4)], ids=lambda pattern: pattern.label)
def test_the_swap_optimum_lies_between_the_start_and_the_global_optimum(pattern):
    p = problem(8, pattern, rows=4, inputs=12, tokens=40)
    refined = sparseswaps(p.weight, p.gram, p.mask, pattern)
    size, keep = pattern.groups(4, 12)
    for r in range(4):
        least = oracles.global_optimum(p.weight[r].numpy(), p.gram.numpy(), size, keep)
        assert least <= refined.loss_after[r] * (1 + 1e-6)
    assert refined.loss_after.sum() < refined.loss_before.sum()


def test_more_swaps_lower_the_loss_until_the_optimum():
    p = problem(9, PATTERNS[1], rows=16, inputs=64, tokens=300)
    losses = [
        sparseswaps(p.weight, p.gram, p.mask, p.pattern, SparseSwaps(max_swaps=T)).loss_after.sum().item()
        for T in (1, 2, 5, 25)
    ]
    assert losses == sorted(losses, reverse=True)
    limited = sparseswaps(p.weight, p.gram, p.mask, p.pattern, SparseSwaps(max_swaps=2))
    assert limited.swaps.max() == 2
    assert not limited.optimal.all()


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_degenerate_layers_end_finite_and_optimal(degenerate):
    p = problem(10, PATTERNS[2], rows=9, inputs=30, tokens=7, degenerate=degenerate)
    refined = sparseswaps(p.weight, p.gram, p.mask, p.pattern)
    assert refined.loss_after.isfinite().all()
    assert refined.optimal.all()


def test_bfloat16_weights_are_refined_as_the_float32_they_stand_for():
    p = problem(11, PATTERNS[2], rows=4, inputs=20, tokens=60)
    half = p.weight.bfloat16()
    torch.testing.assert_close(
        sparseswaps(half, p.gram, p.mask, p.pattern).mask, sparseswaps(half.float(), p.gram, p.mask, p.pattern).mask
    )


def test_progress_counts_every_row_and_sums_the_losses():
    p = problem(12, PATTERNS[2], rows=70, inputs=20, tokens=60)
    told = []
    refined = sparseswaps(p.weight, p.gram, p.mask, p.pattern, progress=lambda *figures: told.append(figures))
    rows, before, after = map(sum, zip(*told, strict=True))
    assert rows == 70
    assert before == pytest.approx(refined.loss_before.sum().item())
    assert after == pytest.approx(refined.loss_after.sum().item())


def test_without_numba_one_warning_names_the_loss_and_the_result_is_the_same(monkeypatch):
    p = problem(13, PATTERNS[2], rows=4, inputs=20, tokens=60)
    compiled = sparseswaps(p.weight, p.gram, p.mask, p.pattern, SparseSwaps(max_swaps=3))
    monkeypatch.setitem(__import__("sys").modules, "prunelib.kernels.cpu.swaps", None)
    with pytest.warns(UserWarning, match="numba cannot be used"):
        plain = sparseswaps(p.weight, p.gram, p.mask, p.pattern, SparseSwaps(max_swaps=3))
    torch.testing.assert_close(compiled.mask, plain.mask)


def test_bad_input_is_refused_in_one_line():
    p = problem(14, PATTERNS[4], rows=4, inputs=8, tokens=60)
    wrong_counts = ~p.mask
    with pytest.raises(PatternError, match="groups do not keep exactly 1 of 4"):
        sparseswaps(p.weight, p.gram, wrong_counts, p.pattern)
    with pytest.raises(NumericalError, match="weight: NaN"):
        sparseswaps(p.weight * torch.nan, p.gram, p.mask, p.pattern)
    with pytest.raises(NumericalError, match="gram: NaN"):
        sparseswaps(p.weight, p.gram / 0, p.mask, p.pattern)
    with pytest.raises(NumericalError, match="gram: shape"):
        sparseswaps(p.weight, p.gram[:4, :4], p.mask, p.pattern)
