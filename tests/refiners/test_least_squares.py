"""Least squares on the support against numpy's, row by row; and that no step leaves a row worse than it came."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems

from prunelib import PerLayer, PerRow
from prunelib.algebra.least_squares import solve_on_support
from prunelib.algebra.objective import refit_losses, row_losses
from prunelib.methods.contract import ExtraInputs, silent
from prunelib.methods.kept_weights import KeptWeights, kept_weights, the_better
from prunelib.refiners.least_squares import LeastSquares, least_squares


def least_loss(w, G, m):
    """The least (w - x)^T G (w - x) over x that are 0 where not m, by lstsq in units of the inputs' norms."""
    norms = np.sqrt(np.diag(G))
    units = np.where(norms > 0, norms, 1)
    A, e = G / np.outer(units, units), np.where(m, 0, w * norms)
    kept = np.flatnonzero(m)
    e[kept] = -np.linalg.lstsq(A[np.ix_(kept, kept)], (A @ e)[kept], rcond=1e-6)[0]
    return max(e @ A @ e, 0)


def least_losses(p):
    G = ((p.gram + p.gram.T) / 2).double().numpy()
    return np.array([least_loss(w, G, m) for w, m in zip(p.weight.double().numpy(), p.mask.numpy(), strict=True)])


def unknown(p):
    """What the rounding of a float32 Gram matrix leaves unknown of a loss, (rows,)."""
    return 1e-7 * (p.weight.double() * p.gram.diagonal().double().sqrt()).abs().sum(dim=1).square()


def assert_least(p, refined):
    slack = 1e-3 * refined.loss_before + unknown(p)
    assert (refined.loss_after.numpy() <= least_losses(p) + slack.numpy()).all()


def exactly_zero_where_pruned(weight, mask):
    pruned = weight[~mask]
    return bool((pruned == 0).all() and not pruned.signbit().any())


@settings(max_examples=200)
@given(problems(patterns=PATTERNS + PER_LAYER))
def test_the_minimum_is_reached_on_degenerate_layers_too(p):
    refined = least_squares(p.weight, p.gram, p.mask, p.pattern, LeastSquares(tolerance=1e-6))
    assert_least(p, refined)
    assert (refined.loss_after <= refined.loss_before).all()
    assert torch.equal(refined.mask, p.mask)
    assert refined.weight.dtype == torch.float32
    assert refined.weight.isfinite().all()
    assert exactly_zero_where_pruned(refined.weight, p.mask)
    torch.testing.assert_close(refined.loss_after, refit_losses(p.weight, p.gram, refined.weight), rtol=0, atol=0)


@pytest.mark.parametrize("sparsity", [0.05, 0.6, 0.95])
@pytest.mark.parametrize("rows", [1, 9])
def test_the_weights_are_those_of_numpy(rows, sparsity):
    p = problem(1, PerRow(sparsity=sparsity), rows, inputs=20, tokens=100)
    refined = least_squares(p.weight, p.gram, p.mask, p.pattern, LeastSquares(tolerance=1e-7))
    W, G = p.weight.double().numpy(), p.gram.double().numpy()
    for w, m, x in zip(W, p.mask.numpy(), refined.weight.numpy(), strict=True):
        np.testing.assert_allclose(x[m], np.linalg.solve(G[m][:, m], G[m] @ w), rtol=1e-3, atol=1e-3)


def test_the_error_falls_with_every_iteration():
    p = problem(2, PATTERNS[2], rows=12, inputs=60, tokens=200)
    start = kept_weights(p.weight, p.mask).weight
    updated = [solve_on_support(p.weight, p.gram, p.mask, start, n, tolerance=1e-9) for n in range(30)]
    losses = torch.stack([refit_losses(p.weight, p.gram, x) for x in updated])
    torch.testing.assert_close(losses[0], row_losses(p.weight, p.gram, p.mask))
    assert (losses.diff(dim=0) <= 1e-6 * losses[:-1]).all()
    assert (losses[-1] < 0.9 * losses[0]).all()


def test_a_finished_row_stops_while_others_go_on():
    p = problem(3, PATTERNS[1], rows=2, inputs=40, tokens=100)
    p.weight[0] = p.weight[0].masked_fill(~p.mask[0], 0)  # prunes nothing: finished before it began
    together = least_squares(p.weight, p.gram, p.mask, p.pattern)
    alone = least_squares(p.weight[1:], p.gram, p.mask[1:], p.pattern)
    assert torch.equal(together.weight[0], p.weight[0])
    torch.testing.assert_close(together.weight[1], alone.weight[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-5])
def test_the_residual_is_as_low_as_asked(tolerance):
    p = problem(4, PATTERNS[2], rows=8, inputs=50, tokens=300)
    units = p.gram.diagonal().double().sqrt()
    updated = solve_on_support(p.weight, p.gram, p.mask, kept_weights(p.weight, p.mask).weight, 1000, tolerance)

    def residual(x):
        return ((p.weight.double() - x) @ p.gram.double() / units).masked_fill(~p.mask, 0).norm(dim=1)

    assert (residual(updated) <= 1.01 * tolerance * residual(kept_weights(p.weight, p.mask).weight)).all()


def test_updated_weights_are_the_start_and_the_minimum_stays_the_minimum():
    p = problem(5, PATTERNS[2], rows=8, inputs=30, tokens=200)
    first = least_squares(p.weight, p.gram, p.mask, p.pattern, LeastSquares(iterations=3))
    second = least_squares(p.weight, p.gram, p.mask, p.pattern, extra=ExtraInputs(updated_weight=first.weight))
    third = least_squares(
        p.weight,
        p.gram,
        p.mask,
        p.pattern,
        LeastSquares(tolerance=1e-12),
        extra=ExtraInputs(updated_weight=second.weight),
    )
    torch.testing.assert_close(second.loss_before, first.loss_after)
    assert (second.loss_after < first.loss_after).all()
    assert_least(p, second)
    assert (third.loss_after <= third.loss_before).all()
    torch.testing.assert_close(third.weight, second.weight, rtol=1e-2, atol=1e-3)


def test_damping_is_least_squares_of_the_error_and_holds_weights_near_the_models():
    p = problem(6, PATTERNS[1], rows=5, inputs=20, tokens=15)
    plain = least_squares(p.weight, p.gram, p.mask, p.pattern)
    refined = least_squares(p.weight, p.gram, p.mask, p.pattern, LeastSquares(damping=0.5, tolerance=1e-7))
    W, G = p.weight.double().numpy(), p.gram.double().numpy()
    G = G + 0.5 * np.diag(G).mean() * np.eye(len(G))
    for w, m, x in zip(W, p.mask.numpy(), refined.weight.numpy(), strict=True):
        np.testing.assert_allclose(x[m], np.linalg.solve(G[m][:, m], G[m] @ w), rtol=1e-3, atol=1e-3)
    kept = kept_weights(p.weight, p.mask).weight
    assert (refined.weight - kept).norm() < (plain.weight - kept).norm()
    torch.testing.assert_close(refined.loss_after, refit_losses(p.weight, p.gram, refined.weight))


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_kept_weights_of_dead_inputs_stay(damping):
    p = problem(7, PATTERNS[1], rows=5, inputs=24, tokens=100, degenerate="dead inputs")
    dead = (p.gram.diagonal() == 0) & p.mask
    refined = least_squares(p.weight, p.gram, p.mask, p.pattern, LeastSquares(damping=damping))
    assert dead.any()
    assert torch.equal(refined.weight[dead], p.weight[dead])


def test_rows_may_keep_all_or_nothing():
    p = problem(8, PerLayer(sparsity=0.5), rows=4, inputs=12, tokens=60)
    mask = torch.tensor([[True] * 12, [False] * 12] * 2)
    refined = least_squares(p.weight, p.gram, mask, p.pattern)
    assert torch.equal(refined.weight[::2], p.weight[::2])
    assert not refined.weight[1::2].any()
    torch.testing.assert_close(refined.loss_after, refined.loss_before)


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_few_tokens_and_many_inputs_stay_tame(degenerate):
    p = problem(9, PATTERNS[1], rows=6, inputs=200, tokens=20, degenerate=degenerate)
    refined = least_squares(p.weight, p.gram, p.mask, p.pattern)
    norms = p.gram.diagonal().double().sqrt()
    largest = (p.weight * norms).abs().amax()
    assert (refined.loss_after <= 1e-3 * refined.loss_before + unknown(p)).all()
    assert (refined.weight * norms).abs().amax() <= 10 * largest


def test_half_precision_weights_are_those_they_stand_for():
    p = problem(10, PATTERNS[2], rows=4, inputs=20, tokens=60)
    half = p.weight.bfloat16()
    from_half, from_float = (least_squares(w, p.gram, p.mask, p.pattern) for w in (half, half.float()))
    assert torch.equal(from_half.weight, from_float.weight)


def test_the_number_of_threads_changes_no_bit():
    p = problem(11, PATTERNS[2], rows=5, inputs=600, tokens=900)
    before, weights = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        weights.append(least_squares(p.weight, p.gram, p.mask, p.pattern).weight)
    torch.set_num_threads(before)
    assert torch.equal(*weights)


def test_each_row_ends_with_the_better_weights():
    weight, gram, mask = torch.tensor([[1.0, 2.0]] * 3), torch.eye(2), torch.tensor([[True, False]] * 3)
    before = KeptWeights(mask, torch.tensor([[0.5, 0.0]] * 3))
    after = KeptWeights(mask, torch.tensor([[1.0, 0.0], [0.0, 0.0], [torch.nan, 0.0]]))
    refined = the_better(weight, gram, before, after, silent)
    assert refined.weight.tolist() == [[1.0, 0.0], [0.5, 0.0], [0.5, 0.0]]
    assert refined.loss_before.tolist() == [4.25] * 3
    assert refined.loss_after.tolist() == [4.0, 4.25, 4.25]


@pytest.mark.parametrize(("last", "taken"), [(1.5, True), (3.0, False)])
def test_the_matrix_ends_with_the_better_weights_where_counts_move_between_rows(last, taken):
    weight, gram = torch.tensor([[1.0, 2.0], [3.0, last]]), torch.eye(2)
    before = kept_weights(weight, torch.tensor([[True, False], [False, True]]))  # loses 4 and 9
    after = kept_weights(weight, torch.tensor([[True, True], [False, False]]))  # loses 0 and 9 + last^2
    refined = the_better(weight, gram, before, after, silent)
    assert torch.equal(refined.mask, (after if taken else before).mask)
    assert torch.equal(refined.weight, (after if taken else before).weight)


def test_without_damping_the_sum_of_the_diagonal_may_be_beyond_float32():
    p = problem(9, PATTERNS[1], rows=3, inputs=8, tokens=20)
    for scale in (1.0, 1e38):
        refined = least_squares(p.weight, scale * torch.eye(8), p.mask, p.pattern)
        assert torch.equal(refined.weight, kept_weights(p.weight, p.mask).weight)
