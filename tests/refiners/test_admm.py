"""ADMM against its equations, written out in numpy."""

from fractions import Fraction

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from pydantic import ValidationError
from strategies import DEGENERATE, PATTERNS, PER_LAYER, poor, problem, problems

from prunelib import NOfM, PerLayer, PerRow
from prunelib.algebra.objective import refit_losses
from prunelib.masks.checks import check_mask
from prunelib.methods.contract import ExtraInputs
from prunelib.refiners.admm import ADMM, admm
from prunelib.refiners.least_squares import least_squares


def share_of(share, count):
    """As patterns count: 29% of 100 are 29."""
    return int(Fraction(str(share)) * count)


def gradual(scores, pattern, share):
    """Where ``share`` of the final sparsity is reached: N:M keeps its N in each group and prunes the lowest others."""
    size, keep = pattern.groups(*scores.shape)
    if not isinstance(pattern, NOfM):
        return oracles.select(scores, size, size - share_of(share * pattern.sparsity, size))
    final = oracles.select(scores, size, keep)
    kept = scores.size - share_of(share * (1 - keep / size), scores.size)
    return final if share == 1 else oracles.select(np.where(final, np.inf, scores), scores.size, kept)


def by_the_paper(W, G, pattern, iterations=20, schedule=15, rho=1.0, damping=0.1):
    """The paper's equations, in the order of the authors' script."""
    W, G = np.asarray(W, np.float64), np.asarray(G, np.float64)
    norms = np.sqrt(np.diag(G))
    units = np.where(norms > 0, norms, 1)
    A = G / np.outer(units, units)
    A += damping * np.diag(A).mean() * np.eye(len(A))
    w0 = W * norms
    X, U, mask = w0.copy(), np.zeros_like(w0), None
    for t in range(1, iterations + 1):
        if t <= schedule:
            mask = gradual(np.abs(X + U), pattern, 1 - (1 - t / schedule) ** 3)
        Z = np.where(mask, X + U, 0)
        U = U + X - Z
        X = (w0 @ A + rho * (Z - U)) @ np.linalg.inv(A + rho * np.eye(len(A)))
    return mask, np.where(mask, np.where(norms > 0, (X + U) / units, W), 0)


@pytest.mark.parametrize("pattern", PATTERNS + PER_LAYER, ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("values", [{}, {"iterations": 7, "schedule": 3, "rho": 2.0, "damping": 0.0}, {"schedule": 1}])
def test_mask_and_weights_are_those_of_the_equations(pattern, values):
    p = problem(1, pattern, rows=6, inputs=24, tokens=80)
    mask, weight = by_the_paper(p.weight, p.gram, pattern, **values)
    refined = admm(p.weight, p.gram, p.mask, pattern, ADMM(**values), extra=ExtraInputs(updated_weight=poor(p)))
    np.testing.assert_array_equal(refined.mask, mask)
    np.testing.assert_allclose(refined.weight, weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pattern", [PerRow(sparsity=0.95), PerRow(sparsity=0.05)], ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("rows", [1, 5])
def test_one_kept_or_one_pruned(pattern, rows):
    p = problem(2, pattern, rows, inputs=20, tokens=8)
    mask, weight = by_the_paper(p.weight, p.gram, pattern)
    refined = admm(p.weight, p.gram, p.mask, pattern, extra=ExtraInputs(updated_weight=poor(p)))
    np.testing.assert_array_equal(refined.mask, mask)
    np.testing.assert_allclose(refined.weight, weight, rtol=1e-5, atol=1e-6)


@settings(max_examples=150)
@given(problems(patterns=PATTERNS + PER_LAYER))
def test_counts_are_exact_weights_finite_and_the_error_no_higher(p):
    refined = admm(p.weight, p.gram, p.mask, p.pattern)
    check_mask(refined.mask, p.weight, p.pattern)
    assert refined.weight.dtype == torch.float32
    assert refined.weight.isfinite().all()
    assert (refined.weight[~refined.mask] == 0).all()
    assert not refined.weight[~refined.mask].signbit().any()
    assert refined.loss_after.sum() <= refined.loss_before.sum()
    if not isinstance(p.pattern, PerLayer):
        assert (refined.loss_after <= refined.loss_before).all()
    torch.testing.assert_close(refined.loss_after, refit_losses(p.weight, p.gram, refined.weight), rtol=0, atol=0)


def test_dead_inputs_are_pruned_first_and_else_keep_their_weights():
    p = problem(3, PerRow(sparsity=0.1), rows=5, inputs=30, tokens=100, degenerate="dead inputs")
    refined = admm(p.weight, p.gram, p.mask, p.pattern, extra=ExtraInputs(updated_weight=poor(p)))
    dead = (p.gram.diagonal() == 0).expand_as(p.mask)
    assert refined.mask[~dead].all()
    kept = dead & refined.mask
    assert kept.any()
    assert torch.equal(refined.weight[kept], p.weight[kept])


@pytest.mark.parametrize("pattern", [PATTERNS[2], PATTERNS[5], PER_LAYER[1]], ids=lambda pattern: pattern.label)
def test_what_is_better_stays(pattern):
    p = problem(4, pattern, rows=6, inputs=40, tokens=300)
    first = admm(p.weight, p.gram, p.mask, pattern)
    best = least_squares(p.weight, p.gram, first.mask, pattern, extra=ExtraInputs(updated_weight=first.weight))
    again = admm(p.weight, p.gram, best.mask, pattern, extra=ExtraInputs(updated_weight=best.weight))
    assert (first.loss_after < first.loss_before).all()
    assert (best.loss_after < first.loss_after).all()
    torch.testing.assert_close(again.loss_before, best.loss_after)
    assert torch.equal(again.weight, best.weight)
    assert torch.equal(again.mask, best.mask)


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_the_weight_and_gram_are_not_changed(degenerate):
    p = problem(5, PATTERNS[1], rows=5, inputs=24, tokens=100, degenerate=degenerate)
    weight, gram = p.weight.double(), p.gram.double()
    admm(weight, gram, p.mask, p.pattern)
    assert torch.equal(weight, p.weight.double())
    assert torch.equal(gram, p.gram.double())


def test_the_number_of_threads_changes_no_bit():
    p = problem(6, PATTERNS[2], rows=5, inputs=600, tokens=900)
    before, weights = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        weights.append(admm(p.weight, p.gram, p.mask, p.pattern).weight)
    torch.set_num_threads(before)
    assert torch.equal(*weights)


def test_a_schedule_that_does_not_end_is_refused():
    with pytest.raises(ValidationError, match="schedule must be at most iterations: 15 of 10"):
        ADMM(iterations=10)
