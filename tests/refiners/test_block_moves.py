"""Block moves as a user calls them."""

import oracles
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, problem, problems

from prunelib import NOfM, PerRow, pruning_error, select, sparseswaps
from prunelib.errors import PatternError
from prunelib.refiners.block_moves import block_moves
from prunelib.runtime.compute import Compute


@settings(max_examples=40)
@given(problems(max_inputs=8, patterns=[NOfM(keep=1, group=4), NOfM(keep=2, group=5), NOfM(keep=4, group=8)]))
def test_a_row_of_one_group_gets_its_best_mask(p):
    size, keep = p.pattern.groups(*p.mask.shape)
    refined = block_moves(p.weight[:, :size], p.gram[:size, :size], p.mask[:, :size], p.pattern)
    assert refined.optimal.all()
    for w, loss, before in zip(p.weight.numpy(), refined.loss_after, refined.loss_before, strict=True):
        least = oracles.global_optimum(w[:size], p.gram[:size, :size].numpy(), size, keep)
        assert loss <= max(least, 0) + 1e-9 * before


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_degenerate_layers_end_finite_optimal_and_with_their_counts(degenerate):
    p = problem(1, NOfM(keep=4, group=8), rows=9, inputs=32, tokens=7, degenerate=degenerate)
    refined = block_moves(p.weight, p.gram, p.mask, p.pattern)
    assert refined.loss_after.isfinite().all()
    assert (refined.loss_after <= refined.loss_before).all()
    assert refined.optimal.all()
    assert (refined.mask.view(9, 4, 8).sum(dim=2) == 4).all()


def test_losses_are_those_of_the_unscaled_layer_and_told():
    p = problem(2, NOfM(keep=2, group=4), rows=70, inputs=32, tokens=100)
    told = []
    refined = block_moves(p.weight, p.gram, p.mask, p.pattern, progress=lambda *figures: told.append(figures))
    rows, before, after = map(sum, zip(*told, strict=True))
    assert rows == 70
    assert before == pytest.approx(pruning_error(p.weight, p.gram, p.mask), rel=1e-6)
    assert after == pytest.approx(pruning_error(p.weight, p.gram, refined.mask), rel=1e-6)
    assert after == pytest.approx(refined.loss_after.sum().item())


def test_after_swaps_they_only_go_further():
    p = problem(3, NOfM(keep=4, group=8), rows=40, inputs=32, tokens=40)
    swapped = sparseswaps(p.weight, p.gram, p.mask, p.pattern)
    refined = block_moves(p.weight, p.gram, swapped.mask, p.pattern)
    assert (refined.loss_after <= swapped.loss_after * (1 + 1e-12)).all()
    assert refined.swaps.sum() > 0
    assert sparseswaps(p.weight, p.gram, refined.mask, p.pattern).swaps.sum() == 0


def test_the_reference_gives_the_same():
    p = problem(4, NOfM(keep=2, group=4), rows=6, inputs=16, tokens=60)
    compiled = block_moves(p.weight, p.gram, p.mask, p.pattern)
    plain = block_moves(p.weight, p.gram, p.mask, p.pattern, compute=Compute(reference=True))
    torch.testing.assert_close(compiled.mask, plain.mask)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [(PerRow(sparsity=0.5), "50% per row: it tries every"), (NOfM(keep=8, group=16), "8:16: it .* at most 1,000 patt")],
)
def test_patterns_that_it_cannot_try_are_refused(pattern, message):
    weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(PatternError, match=message):
        block_moves(weight, torch.eye(16), select(weight.abs(), pattern), pattern)


def test_a_mask_of_other_counts_is_refused():
    p = problem(5, PATTERNS[4], rows=4, inputs=8, tokens=60)
    with pytest.raises(PatternError, match="groups do not keep exactly 1 of 4"):
        block_moves(p.weight, p.gram, ~p.mask, p.pattern)
