"""Refit swaps as a user calls them."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems

from prunelib import NOfM, PerRow, magnitude, select, sparseswaps, wanda
from prunelib.algebra.objective import refit_losses
from prunelib.errors import NumericalError, PatternError
from prunelib.methods.contract import ExtraInputs
from prunelib.refiners import admm, least_squares, refit_swaps, sparsegpt_update
from prunelib.runtime.compute import Compute

HALF = PATTERNS[1]


ALL = refit_swaps.RefitSwaps(refit="all")
WAYS = [refit_swaps.RefitSwaps(), ALL]
both_ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.refit)


def refine(p, way=ALL, **extras):
    return refit_swaps.refit_swaps(p.weight, p.gram, p.mask, p.pattern, way, **extras)


def least_loss(w, G, m):
    """The least loss with the weights that a mask keeps, where G may be singular."""
    w, G = w.double().numpy(), G.double().numpy()
    norms = np.sqrt(np.diag(G))
    G = G / np.outer(norms, norms).clip(min=1e-300)
    x = np.zeros(len(w))
    x[m] = np.linalg.lstsq(G[np.ix_(m, m)], (G @ (w * norms))[m], rcond=1e-9)[0]
    e = w * norms - x
    return max(float(e @ G @ e), 0.0)


@both_ways
@settings(max_examples=80)
@given(p=problems())
def test_weights_are_finite_and_zero_where_pruned_and_counts_stay(way, p):
    weight = p.weight.clone()
    refined = refine(p, way)
    torch.testing.assert_close(p.weight, weight, rtol=0, atol=0)
    assert refined.weight.dtype == torch.float32
    assert refined.weight.isfinite().all()
    pruned = refined.weight[~refined.mask]
    assert (pruned == 0).all()
    assert not pruned.signbit().any()
    shape = (len(p.mask), -1, p.group)
    torch.testing.assert_close(refined.mask.view(shape).sum(-1), p.mask.view(shape).sum(-1))
    assert (refined.loss_after <= refined.loss_before).all()
    torch.testing.assert_close(refined.loss_after, refit_losses(p.weight, p.gram, refined.weight), rtol=0, atol=0)


@settings(max_examples=80)
@given(problems())
def test_no_row_ends_above_least_squares_on_the_mask_that_came_in(p):
    refined = refine(p)
    energies = (p.weight.double() ** 2 * p.gram.double().diagonal()).sum(dim=1)
    for r in range(len(p.mask)):
        least = least_loss(p.weight[r], p.gram, p.mask[r].numpy())
        assert refined.loss_after[r] <= least * (1 + 1e-6) + 1e-5 * energies[r]


@pytest.mark.parametrize("pattern", [PATTERNS[1], PATTERNS[2], PATTERNS[5]], ids=lambda pattern: pattern.label)
def test_error_is_below_that_of_every_other_way_to_move_weights(pattern):
    p = problem(1, pattern, rows=24, inputs=64, tokens=200)
    start = (p.weight, p.gram, select(wanda(p.weight, p.gram), pattern), pattern)
    swapped = sparseswaps(*start)
    others = [
        least_squares.least_squares(*start),
        least_squares.least_squares(p.weight, p.gram, swapped.mask, pattern),
        sparsegpt_update.sparsegpt_update(*start),
        admm.admm(*start),
    ]
    least = min(other.loss_after.sum() for other in others)
    restored, exact = (refit_swaps.refit_swaps(*start, way).loss_after.sum() for way in WAYS)
    assert exact < 0.97 * least
    assert exact < restored < 1.1 * least


@both_ways
@pytest.mark.parametrize("keep", [1, 7])
def test_one_kept_or_pruned_weight_of_a_row_ends_between_the_best_of_all_masks_and_least_squares(way, keep):
    p = problem(6, PerRow(sparsity=1 - keep / 8), rows=6, inputs=8, tokens=40)
    masks = [np.isin(np.arange(8), kept) for kept in combinations(range(8), keep)]
    least = np.array([min(least_loss(w, p.gram, m) for m in masks) for w in p.weight])
    start = np.array([least_loss(w, p.gram, m) for w, m in zip(p.weight, p.mask.numpy(), strict=True)])
    refined = refine(p, way)
    assert (refined.mask.sum(dim=1) == keep).all()
    found = refined.loss_after.numpy()
    assert (found >= least * (1 - 1e-6)).all()
    assert (found <= start * (1 + 1e-3)).all()
    assert found.sum() < start.sum()


@pytest.mark.parametrize("pattern", [HALF, NOfM(keep=2, group=4)], ids=lambda pattern: pattern.label)
def test_the_optimum_lies_between_the_best_of_all_masks_and_least_squares_on_the_start(pattern):
    p = problem(2, pattern, rows=6, inputs=8, tokens=40)
    size, keep = pattern.groups(6, 8)
    masks = [np.isin(np.arange(8), kept) for kept in combinations(range(8), 4)]
    fitting = [m for m in masks if (m.reshape(-1, size).sum(axis=1) == keep).all()]
    least = [min(least_loss(w, p.gram, m) for m in fitting) for w in p.weight]
    refined = refine(p)
    assert (refined.loss_after >= torch.tensor(least) * (1 - 1e-6)).all()
    start = [least_loss(w, p.gram, m) for w, m in zip(p.weight, p.mask.numpy(), strict=True)]
    assert (refined.loss_after <= torch.tensor(start) * (1 + 1e-6)).all()
    assert refined.loss_after.sum() < 0.8 * sum(start)
    assert refined.optimal.all()


@both_ways
@pytest.mark.parametrize("pattern", PER_LAYER, ids=lambda pattern: pattern.label)
def test_per_layer_every_row_keeps_its_number(pattern, way):
    p = problem(3, pattern, rows=9, inputs=20, tokens=60)
    mask = select(magnitude(p.weight * torch.logspace(-1, 1, 9)[:, None], p.gram), pattern)
    refined = refit_swaps.refit_swaps(p.weight, p.gram, mask, pattern, way)
    torch.testing.assert_close(refined.mask.sum(dim=1), mask.sum(dim=1))
    assert refined.optimal is None if way.refit == "restored" else refined.optimal.all()


def test_what_came_in_is_what_the_error_is_compared_with():
    p = problem(4, HALF, rows=5, inputs=24, tokens=80)
    updated = (p.weight * 1.1).masked_fill(~p.mask, 0)
    plain, after_update = refine(p), refine(p, extra=ExtraInputs(updated_weight=updated))
    torch.testing.assert_close(plain.loss_before, refit_losses(p.weight, p.gram, p.weight * p.mask))
    torch.testing.assert_close(after_update.loss_before, refit_losses(p.weight, p.gram, updated))
    torch.testing.assert_close(after_update.weight, plain.weight, rtol=0, atol=0)


def test_a_second_time_changes_nothing():
    p = problem(5, HALF, rows=40, inputs=24, tokens=80)
    once = refine(p)
    twice = refit_swaps.refit_swaps(
        p.weight, p.gram, once.mask, p.pattern, ALL, extra=ExtraInputs(updated_weight=once.weight)
    )
    torch.testing.assert_close(twice.mask, once.mask)
    torch.testing.assert_close(twice.weight, once.weight)
    assert twice.swaps.sum() == 0
    assert twice.optimal.all()


@both_ways
def test_rows_without_an_error_stay_as_they_are(way):
    p = problem(6, HALF, rows=4, inputs=12, tokens=30)
    perfect = p.weight.masked_fill(~p.mask, 0)
    refined = refit_swaps.refit_swaps(perfect, p.gram, p.mask, p.pattern, way)
    assert (refined.loss_before == 0).all()
    torch.testing.assert_close(refined.weight, perfect, rtol=0, atol=0)


@both_ways
def test_damping_holds_the_kept_weights_near_the_models(way):
    p = problem(7, HALF, rows=8, inputs=24, tokens=30)
    distances = []
    for damping in (0.0, 0.1, 1e4):
        refined = refine(p, way.model_copy(update={"damping": damping}))
        distances.append((refined.weight - p.weight)[refined.mask].abs().max().item())
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-2 < distances[0]


@both_ways
def test_dead_inputs_are_given_up_and_keep_their_weights_where_they_must_stay(way):
    p = problem(8, PerRow(sparsity=0.25), rows=6, inputs=12, tokens=50, degenerate="dead inputs")
    mask = (torch.arange(12) < 9).repeat(6, 1)
    dead = torch.arange(12) % 3 == 0
    refined = refit_swaps.refit_swaps(p.weight, p.gram, mask, p.pattern, way)
    assert refined.mask[:, ~dead].all()
    torch.testing.assert_close(refined.weight[:, dead], (p.weight * refined.mask)[:, dead], rtol=0, atol=0)
    assert (refined.loss_after <= 1e-6 * refined.loss_before).all()


@both_ways
@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_degenerate_layers_end_finite(degenerate, way):
    p = problem(9, PATTERNS[2], rows=9, inputs=30, tokens=7, degenerate=degenerate)
    refined = refine(p, way)
    assert refined.loss_after.isfinite().all()
    assert refined.weight.isfinite().all()


def test_bfloat16_weights_are_refined_as_the_float32_they_stand_for():
    p = problem(10, PATTERNS[2], rows=4, inputs=20, tokens=60)
    half = p.weight.bfloat16()
    for way in WAYS:
        found, expected = (refit_swaps.refit_swaps(w, p.gram, p.mask, p.pattern, way) for w in (half, half.float()))
        torch.testing.assert_close(found.mask, expected.mask)
        torch.testing.assert_close(found.weight, expected.weight)


@both_ways
def test_progress_counts_every_row_and_sums_the_losses(way):
    p = problem(11, PATTERNS[2], rows=70, inputs=20, tokens=60)
    told = []
    refined = refine(p, way, progress=lambda *figures: told.append(figures))
    rows, before, after = map(sum, zip(*told, strict=True))
    assert rows == 70
    assert before == pytest.approx(refined.loss_before.sum().item())
    assert after == pytest.approx(refined.loss_after.sum().item())


def test_the_restored_weights_start_from_those_that_came_in():
    p = problem(14, HALF, rows=12, inputs=24, tokens=80)
    fitted = least_squares.least_squares(p.weight, p.gram, p.mask, p.pattern).weight
    plain, after_update = (
        refine(p, WAYS[0], **extras) for extras in ({}, {"extra": ExtraInputs(updated_weight=fitted)})
    )
    assert (plain.mask != after_update.mask).any()
    assert (after_update.loss_after <= after_update.loss_before).all()
    assert after_update.loss_after.sum() < 0.98 * after_update.loss_before.sum()


def test_the_reference_ends_in_an_optimum_too():
    p = problem(12, PATTERNS[2], rows=4, inputs=20, tokens=60)
    plain = refine(p, compute=Compute(reference=True))
    assert plain.optimal.all()
    assert refit_swaps.refit_swaps(p.weight, p.gram, plain.mask, p.pattern, ALL).swaps.sum() == 0


def test_bad_input_is_refused_in_one_line():
    p = problem(13, PATTERNS[4], rows=4, inputs=8, tokens=60)
    with pytest.raises(PatternError, match="groups do not keep exactly 1 of 4"):
        refit_swaps.refit_swaps(p.weight, p.gram, ~p.mask, p.pattern)
    with pytest.raises(NumericalError, match="weight: NaN"):
        refit_swaps.refit_swaps(p.weight * torch.nan, p.gram, p.mask, p.pattern)


@both_ways
def test_damping_is_least_squares_and_optimal_of_the_damped_error(way):
    p = problem(10, HALF, rows=12, inputs=14, tokens=9)
    refined = refine(p, way.model_copy(update={"damping": 0.2}))
    W, G = p.weight.double().numpy(), p.gram.double().numpy()
    G = G + 0.2 * np.diag(G).mean() * np.eye(len(G))
    unchanged = (refined.mask == p.mask).all(dim=1) & (refined.loss_after == refined.loss_before)
    assert not unchanged.all()
    for row in (~unchanged).nonzero()[:, 0].tolist():
        m, x = refined.mask[row].numpy(), refined.weight[row].numpy()
        np.testing.assert_allclose(x[m], np.linalg.solve(G[m][:, m], G[m] @ W[row]), rtol=1e-3, atol=1e-3)
    if way.refit != "all":
        return
    assert refined.optimal.any()
    for row in refined.optimal.nonzero()[:, 0].tolist():
        m = refined.mask[row]
        G_ = torch.from_numpy(G)
        ended = least_loss(p.weight[row], G_, m)
        for u, j in product(m.nonzero()[:, 0].tolist(), (~m).nonzero()[:, 0].tolist()):
            other = m.clone()
            other[u], other[j] = False, True
            assert least_loss(p.weight[row], G_, other) >= ended * (1 - 1e-4)
