"""SparseGPT's mask and update against Optimal Brain Surgeon by explicit inverses, column by column."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, PER_LAYER, poor, problem, problems

from prunelib import NOfM, PerRow
from prunelib.algebra.objective import refit_losses
from prunelib.algebra.obs import prune_columns
from prunelib.errors import NumericalError, PatternError
from prunelib.masks.checks import check_mask
from prunelib.methods.contract import ExtraInputs
from prunelib.refiners.least_squares import least_squares
from prunelib.refiners.sparsegpt_update import SparseGPTUpdate as UpdateSettings
from prunelib.refiners.sparsegpt_update import sparsegpt_update
from prunelib.warmstarts.sparsegpt import SparseGPT, sparsegpt


def hessian(gram, damping=0.01):
    G = np.asarray(gram, np.float64)
    H = G + damping * np.mean(np.diag(G)) * np.eye(len(G))
    return H if H.any() else np.eye(len(G))


def surgeon(W, H, choose_columns, starts):
    """Algorithm 1 of SparseGPT without its factorisation: for every column, the inverse of what remains of H.

    ``choose_columns(first, last, costs)`` gives the mask of the columns whose choice is due at ``first``; costs are of
    these and all after them.
    """
    W, inputs = np.array(W, np.float64), len(H)
    mask = np.zeros(W.shape, bool)
    inverses = [np.linalg.inv(H[j:, j:]) for j in range(inputs)]
    for first, last in zip(starts, [*starts[1:], inputs], strict=True):
        chosen = False
        for j in range(first, last):
            if not chosen:
                costs = np.stack([W[:, c] ** 2 / inverses[c][0, 0] for c in range(first, inputs)], axis=1)
                mask[:, first:last], chosen = choose_columns(first, last, costs), True
            F = inverses[j]
            for r in np.flatnonzero(~mask[:, j]):
                W[r, j:] -= W[r, j] / F[0, 0] * F[0]
    return mask, np.where(mask, W, 0)


def keep_costliest(costs, count):
    """Of each row the ``count`` highest, ties to the left."""
    kept = np.zeros(costs.shape, bool)
    for row, cost in zip(kept, costs, strict=True):
        row[sorted(range(len(cost)), key=lambda c: (-cost[c], c))[:count]] = True
    return kept


def shares(keep, inputs, first, last):
    return keep * last // inputs - keep * first // inputs


def by_group(keep):
    return lambda first, last, costs: keep_costliest(costs[:, : last - first], keep)


def by_row(keep, rows):
    """Of each row what is among the costliest that it may still keep."""
    left = [keep] * rows

    def choice(first, last, costs):
        mask = np.zeros((rows, last - first), bool)
        for r in range(rows):
            mask[r] = keep_costliest(costs[r : r + 1], left[r])[0, : last - first]
            left[r] -= mask[r].sum()
        return mask

    return choice


def by_layer(keep, inputs):
    def choice(first, last, costs):
        block = costs[:, : last - first]
        return keep_costliest(block.reshape(1, -1), shares(keep, inputs, first, last)).reshape(block.shape)

    return choice


def expected(p, block, damping=0.01):
    """Mask and weights by the definition; dead inputs count as weights of 0."""
    rows, inputs = p.weight.shape
    size, keep = p.pattern.groups(rows, inputs)
    W = np.where(np.diag(p.gram.numpy()) > 0, p.weight.numpy(), 0)
    starts = list(range(0, inputs, size if isinstance(p.pattern, NOfM) else block))
    choices = {"n_of_m": by_group(keep), "per_row": by_row(keep, rows), "per_layer": by_layer(keep, inputs)}
    choice = choices[p.pattern.kind]
    return surgeon(W, hessian(p.gram, damping), choice, starts)


@pytest.mark.parametrize("pattern", PATTERNS + PER_LAYER, ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("block", [5, 8, 24, 128])
def test_mask_and_update_are_those_of_the_surgeon(pattern, block):
    p = problem(1, pattern, rows=6, inputs=24, tokens=80)
    mask, weight = expected(p, block)
    chosen = sparsegpt(p.weight, p.gram, pattern, SparseGPT(block=block))
    np.testing.assert_array_equal(chosen, mask)
    updated = prune_columns(p.weight, p.gram, lambda columns, _: chosen[:, columns], block=block)
    np.testing.assert_allclose(updated[1], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pattern", [PATTERNS[1], PATTERNS[5]], ids=lambda pattern: pattern.label)
def test_damping_is_that_of_the_settings(pattern):
    p = problem(1, pattern, rows=6, inputs=24, tokens=80)
    masks = []
    for damping in (1e-4, 0.1, 10.0):
        mask, weight = expected(p, 8, damping)
        masks.append(sparsegpt(p.weight, p.gram, pattern, SparseGPT(block=8, damping=damping)))
        np.testing.assert_array_equal(masks[-1], mask)
        extra = ExtraInputs(updated_weight=poor(replace(p, mask=masks[-1])))
        updated = sparsegpt_update(p.weight, p.gram, masks[-1], pattern, UpdateSettings(damping=damping), extra=extra)
        np.testing.assert_allclose(updated.weight, weight, rtol=1e-5, atol=1e-6)
    assert not torch.equal(masks[0], masks[-1])


@pytest.mark.parametrize("degenerate", ["dead inputs", "all dead", "zero rows", "twins", "huge and tiny rows"])
@pytest.mark.parametrize("pattern", [PATTERNS[1], PATTERNS[5], PER_LAYER[1]], ids=lambda pattern: pattern.label)
def test_degenerate_layers_agree_with_the_surgeon(pattern, degenerate):
    p = problem(2, pattern, rows=5, inputs=16, tokens=10, degenerate=degenerate)
    np.testing.assert_array_equal(sparsegpt(p.weight, p.gram, pattern, SparseGPT(block=6)), expected(p, 6)[0])


@pytest.mark.parametrize(("rows", "inputs", "sparsity"), [(1, 20, 0.95), (1, 20, 0.05), (7, 20, 0.95), (7, 20, 0.05)])
def test_one_kept_or_one_pruned(rows, inputs, sparsity):
    p = problem(3, PerRow(sparsity=sparsity), rows, inputs, tokens=60)
    mask, weight = expected(p, 128)
    assert mask.sum() in {rows, rows * (inputs - 1)}
    chosen = sparsegpt(p.weight, p.gram, p.pattern)
    np.testing.assert_array_equal(chosen, mask)
    updated = prune_columns(p.weight, p.gram, lambda columns, _: chosen[:, columns])
    np.testing.assert_allclose(updated[1], weight, rtol=1e-5, atol=1e-6)


@settings(max_examples=200)
@given(problems(patterns=PATTERNS + PER_LAYER))
def test_counts_are_exact_and_dead_inputs_go_first(p):
    for block in (3, 128):
        mask = sparsegpt(p.weight, p.gram, p.pattern, SparseGPT(block=block))
        check_mask(mask, p.weight, p.pattern)
    if isinstance(p.pattern, PerRow) and (p.weight != 0).all():
        dead = p.gram.diagonal() == 0
        live_pruned, dead_kept = (~mask & ~dead).any(dim=1), (mask & dead).any(dim=1)
        assert not (live_pruned & dead_kept).any()


@settings(max_examples=100)
@given(problems(patterns=PATTERNS + PER_LAYER))
def test_the_update_is_finite_and_leaves_no_row_worse(p):
    refined = sparsegpt_update(p.weight, p.gram, p.mask, p.pattern)
    assert torch.equal(refined.mask, p.mask)
    assert refined.weight.isfinite().all()
    assert (refined.weight[~p.mask] == 0).all()
    assert not refined.weight[~p.mask].signbit().any()
    assert (refined.loss_after <= refined.loss_before).all()
    torch.testing.assert_close(refined.loss_after, refit_losses(p.weight, p.gram, refined.weight), rtol=0, atol=0)


@pytest.mark.parametrize("pattern", [PATTERNS[2], PATTERNS[5], PER_LAYER[1]], ids=lambda pattern: pattern.label)
def test_start_and_refiner_together_are_sparsegpt(pattern):
    """With the mask that it has just chosen, the update makes every step of the choice again, bit for bit."""
    p = problem(4, pattern, rows=8, inputs=300, tokens=900)
    seen = []

    def spy(columns, costs):
        seen.append(costs(slice(columns.start, 300)))
        return mask[:, columns]

    mask = sparsegpt(p.weight, p.gram, pattern)
    _, weight = prune_columns(p.weight, p.gram, spy)
    refined = sparsegpt_update(p.weight, p.gram, mask, pattern)
    assert torch.equal(refined.weight, weight)
    assert (refined.loss_after < refined.loss_before).all()
    if isinstance(pattern, NOfM):
        return  # chosen group by group, not block by block
    rows, inputs = mask.shape
    keep = pattern.groups(rows, inputs).keep
    choice = by_row(keep, rows) if isinstance(pattern, PerRow) else by_layer(keep, inputs)
    for first, costs in zip(range(0, inputs, 128), seen, strict=True):
        last = min(first + 128, inputs)
        np.testing.assert_array_equal(choice(first, last, costs.numpy()), mask[:, first:last])


def test_blocks_change_how_columns_learn_but_not_what():
    p = problem(5, PATTERNS[2], rows=6, inputs=90, tokens=200)
    whole, parts = (
        prune_columns(p.weight, p.gram, lambda columns, _: p.mask[:, columns], block=block)[1] for block in (90, 7)
    )
    torch.testing.assert_close(whole, parts)


def test_the_update_starts_from_the_models_weights_and_moved_is_what_it_must_beat():
    p = problem(6, PATTERNS[1], rows=6, inputs=40, tokens=200)
    plain = sparsegpt_update(p.weight, p.gram, p.mask, p.pattern)
    best = least_squares(p.weight, p.gram, p.mask, p.pattern)
    kept = sparsegpt_update(p.weight, p.gram, p.mask, p.pattern, extra=ExtraInputs(updated_weight=best.weight))
    worst = sparsegpt_update(
        p.weight, p.gram, p.mask, p.pattern, extra=ExtraInputs(updated_weight=torch.zeros_like(p.weight))
    )
    assert torch.equal(kept.weight, best.weight)
    torch.testing.assert_close(kept.loss_before, best.loss_after)
    assert torch.equal(worst.weight, plain.weight)


def test_kept_weights_of_dead_inputs_stay():
    p = problem(7, PATTERNS[1], rows=5, inputs=24, tokens=100, degenerate="dead inputs")
    dead = (p.gram.diagonal() == 0) & p.mask
    assert torch.equal(sparsegpt_update(p.weight, p.gram, p.mask, p.pattern).weight[dead], p.weight[dead])


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_the_weight_and_gram_are_not_changed(degenerate):
    p = problem(8, PATTERNS[1], rows=5, inputs=24, tokens=100, degenerate=degenerate)
    weight, gram = p.weight.double(), p.gram.clone()
    sparsegpt(weight, gram, p.pattern)
    sparsegpt_update(weight, gram, p.mask, p.pattern)
    assert torch.equal(weight, p.weight.double())
    assert torch.equal(gram, p.gram)


def test_the_number_of_threads_changes_no_bit():
    p = problem(9, PATTERNS[2], rows=5, inputs=600, tokens=900)
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(
            (sparsegpt(p.weight, p.gram, p.pattern), sparsegpt_update(p.weight, p.gram, p.mask, p.pattern).weight)
        )
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_bad_input_is_refused_in_one_line():
    p = problem(10, PATTERNS[5], rows=2, inputs=8, tokens=4)
    with pytest.raises(PatternError, match="does not divide"):
        sparsegpt(p.weight[:, :7], p.gram[:7, :7], p.pattern)
    with pytest.raises(NumericalError, match="weight: NaN"):
        sparsegpt(p.weight * torch.nan, p.gram, p.pattern)
    indefinite = torch.tensor([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    with pytest.raises(NumericalError, match="gram: not positive definite when damped"):
        sparsegpt(torch.ones(1, 3), indefinite, PATTERNS[1], SparseGPT(damping=1e-6))
