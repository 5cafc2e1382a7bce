"""Exchanges between rows, against brute force over the whole matrix."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PER_LAYER, problem, problems

from prunelib import PerLayer, PerRow, pruning_error, select, sparseswaps
from prunelib.errors import PatternError
from prunelib.refiners.row_exchange import row_exchange


def best_single_changes(w, G, m, pruned):
    """The least change of a row's loss by pruning one place (or restoring one, with ``pruned`` True)."""
    places = np.flatnonzero(m != pruned)
    changes = [oracles.loss(w, G, np.where(np.arange(len(m)) == k, pruned, m)) - oracles.loss(w, G, m) for k in places]
    return min(changes, default=np.inf)


def assert_no_exchange_improves(W, G, M, tolerance=1e-9):
    """No place of one row is worth more in another, by more than a tolerance relative to the terms of both rows."""
    scales = [max(oracles.loss(w, G, m), 1e-3 * float(np.sum(w**2 * np.diag(G)))) for w, m in zip(W, M, strict=True)]
    prune, restore = (
        [best_single_changes(w, G, m, pruned) for w, m in zip(W, M, strict=True)] for pruned in (False, True)
    )
    for r in range(len(W)):
        for s in set(range(len(W))) - {r}:
            assert prune[r] + restore[s] >= -tolerance * (scales[r] + scales[s])


@settings(max_examples=60)
@given(problems(max_inputs=10, patterns=PER_LAYER))
def test_no_swap_within_a_row_or_between_two_is_left(p):
    refined = row_exchange(p.weight, p.gram, p.mask, p.pattern)
    assert refined.optimal.all()
    assert refined.mask.sum() == p.mask.sum()
    W, G = p.weight.double().numpy(), ((p.gram.double() + p.gram.T.double()) / 2).numpy()
    assert_no_exchange_improves(W, G, refined.mask.numpy())
    for w, m in zip(W, refined.mask.numpy(), strict=True):
        assert oracles.is_swap_optimal(w, G, m, len(w))


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_the_total_falls_below_that_of_swaps_alone(degenerate):
    p = problem(1, PER_LAYER[1], rows=12, inputs=24, tokens=60, degenerate=degenerate)
    swapped, refined = (
        sparseswaps(p.weight, p.gram, p.mask, p.pattern),
        row_exchange(p.weight, p.gram, p.mask, p.pattern),
    )
    assert refined.loss_after.isfinite().all()
    assert refined.loss_after.sum() <= swapped.loss_after.sum() * (1 + 1e-12)
    assert refined.loss_after.sum() == pytest.approx(pruning_error(p.weight, p.gram, refined.mask))
    if degenerate == "":
        assert refined.loss_after.sum() < swapped.loss_after.sum()
        assert row_exchange(p.weight, p.gram, refined.mask, p.pattern).swaps.sum() == 0


def test_with_independent_inputs_the_largest_weights_of_the_matrix_stay():
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    pattern = PerLayer(sparsity=0.6)
    start = select(torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)), pattern)
    refined = row_exchange(weight, torch.eye(30), start, pattern)
    torch.testing.assert_close(refined.mask, select(weight.abs(), pattern))


def test_a_row_may_give_up_or_gain_all_its_places():
    weight = torch.tensor([[1.0, 1.0, 1.0], [9.0, 9.0, 9.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [False, False, False], [False, False, True]])
    refined = row_exchange(weight, torch.eye(3), mask, PerLayer(sparsity=0.67))
    assert refined.mask.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert refined.loss_before.tolist() == [1.0, 243.0, 0.0]
    assert refined.loss_after.tolist() == [3.0, 0.0, 0.0]
    assert refined.swaps.tolist() == [2, 0, 1]


def test_neither_the_number_of_threads_nor_the_dtype_changes_the_mask():
    p = problem(2, PER_LAYER[1], rows=40, inputs=48, tokens=300)
    half = p.weight.bfloat16()
    masks, threads = [], torch.get_num_threads()
    for weight, number in ((half, 1), (half, 3), (half.float(), 1)):
        torch.set_num_threads(number)
        masks.append(row_exchange(weight, p.gram, p.mask, p.pattern).mask)
    torch.set_num_threads(threads)
    torch.testing.assert_close(masks[0], masks[1])
    torch.testing.assert_close(masks[0], masks[2])


def test_patterns_with_counts_for_each_row_are_refused():
    weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    pattern = PerRow(sparsity=0.5)
    with pytest.raises(PatternError, match="50% per row, expected one per layer"):
        row_exchange(weight, torch.eye(16), select(weight.abs(), pattern), pattern)
