"""ALPS against its equations, written out in numpy."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, PER_LAYER, poor, problem, problems

from prunelib import PerLayer, PerRow
from prunelib.algebra.objective import refit_losses
from prunelib.masks.checks import check_mask
from prunelib.methods.contract import ExtraInputs
from prunelib.refiners.alps import ALPS, alps


def keep_largest(X, pattern):
    """The largest of each group of the pattern."""
    return oracles.select(np.abs(X), *pattern.groups(*X.shape))


def next_penalty(rho, grown, changed, kept):
    """The rule of the authors' script: the next rho, and whether it has grown."""
    if changed > 0.1 * kept:
        return 1.3 * rho, True
    if changed > 0.005 * kept:
        return 1.2 * rho, True
    if grown:
        return (1.1 * rho if changed else rho), True
    return rho / 5, False


def by_the_paper(W, G, pattern, iterations=300, rho=0.1, damping=0.01):
    """The paper's equations, in the order of the authors' script: the mask, and the weights of least error on it."""
    W, G = np.asarray(W, np.float64), np.asarray(G, np.float64)
    A = G + damping * np.diag(G).mean() * np.eye(len(G))
    units = np.sqrt(np.diag(A))
    A, dense = A / np.outer(units, units), W * units
    seen = keep_largest(dense, pattern)
    Z, V, grown = np.where(seen, dense, 0), np.zeros_like(dense), False
    for t in range(1, iterations + 1):
        X = (dense @ A - V + rho * Z) @ np.linalg.inv(A + rho * np.eye(len(A)))
        mask = keep_largest(X + V / rho, pattern)
        Z = np.where(mask, X + V / rho, 0)
        V = V + rho * (X - Z)
        if t % 3 == 0:
            changed, seen = (mask != seen).sum(), mask
            if (changed == 0 and grown) or (t > 30 and changed < 0.0003 * mask.sum()):
                break
            before, (rho, grown) = rho, next_penalty(rho, grown, changed, mask.sum())
            if changed and rho < before:
                first = keep_largest(dense, pattern)
                Z, V = np.where(first, dense, 0), np.zeros_like(dense)
    mask, weight = keep_largest(X, pattern), np.zeros_like(W)
    for row, kept, target in zip(weight, mask, dense @ A, strict=True):
        row[kept] = np.linalg.solve(A[np.ix_(kept, kept)], target[kept]) / units[kept]
    return mask, weight


@pytest.mark.parametrize("pattern", PATTERNS + PER_LAYER, ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("values", [{}, {"iterations": 7, "rho": 2.0, "damping": 0.1}, {"rho": 1e-3}, {"rho": 50.0}])
def test_mask_and_weights_are_those_of_the_equations(pattern, values):
    p = problem(1, pattern, rows=6, inputs=24, tokens=80)
    mask, weight = by_the_paper(p.weight, p.gram, pattern, **values)
    method = ALPS(**values, refit_iterations=100)
    refined = alps(p.weight, p.gram, p.mask, pattern, method, extra=ExtraInputs(updated_weight=poor(p)))
    np.testing.assert_array_equal(refined.mask, mask)
    np.testing.assert_allclose(refined.weight, weight, rtol=2e-3, atol=2e-3)


def test_weights_are_those_after_the_iterations_of_the_refit():
    p = problem(7, PATTERNS[1], rows=6, inputs=40, tokens=45)
    mask, best = by_the_paper(p.weight, p.gram, p.pattern)
    distances = []
    for iterations in (1, 3, 100):
        extra = ExtraInputs(updated_weight=poor(p))
        refined = alps(p.weight, p.gram, p.mask, p.pattern, ALPS(refit_iterations=iterations), extra=extra)
        np.testing.assert_array_equal(refined.mask, mask)
        distances.append(np.abs(refined.weight.numpy() - best).max())
    assert distances[0] > 1.5 * distances[1] > 3 * distances[2]


@pytest.mark.parametrize("pattern", [PerRow(sparsity=0.95), PerRow(sparsity=0.05)], ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("rows", [1, 5])
def test_one_kept_or_one_pruned(pattern, rows):
    p = problem(2, pattern, rows, inputs=20, tokens=8)
    mask, _ = by_the_paper(p.weight, p.gram, pattern)
    refined = alps(p.weight, p.gram, p.mask, pattern, extra=ExtraInputs(updated_weight=poor(p)))
    np.testing.assert_array_equal(refined.mask, mask)


@settings(max_examples=100)
@given(problems(patterns=PATTERNS + PER_LAYER))
def test_counts_are_exact_weights_finite_and_the_error_no_higher(p):
    refined = alps(p.weight, p.gram, p.mask, p.pattern)
    check_mask(refined.mask, p.weight, p.pattern)
    assert refined.weight.dtype == torch.float32
    assert refined.weight.isfinite().all()
    assert (refined.weight[~refined.mask] == 0).all()
    assert not refined.weight[~refined.mask].signbit().any()
    assert refined.loss_after.sum() <= refined.loss_before.sum()
    if not isinstance(p.pattern, PerLayer):
        assert (refined.loss_after <= refined.loss_before).all()
    torch.testing.assert_close(refined.loss_after, refit_losses(p.weight, p.gram, refined.weight), rtol=0, atol=0)


@pytest.mark.parametrize("damping", [0.0, 0.01])
@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_nothing_given_is_changed_and_no_damping_works(degenerate, damping):
    p = problem(5, PATTERNS[1], rows=5, inputs=24, tokens=10, degenerate=degenerate)
    weight, gram = p.weight.double(), p.gram.double()
    refined = alps(weight, gram, p.mask, p.pattern, ALPS(damping=damping))
    assert refined.weight.isfinite().all()
    assert torch.equal(weight, p.weight.double())
    assert torch.equal(gram, p.gram.double())


def test_kept_weights_of_dead_inputs_are_those_of_the_model():
    p = problem(3, PerRow(sparsity=0.1), rows=5, inputs=30, tokens=100, degenerate="dead inputs")
    refined = alps(p.weight, p.gram, p.mask, p.pattern, extra=ExtraInputs(updated_weight=poor(p)))
    kept = (p.gram.diagonal() == 0).expand_as(p.mask) & refined.mask
    assert kept.any()
    assert torch.equal(refined.weight[kept], p.weight[kept])


@pytest.mark.parametrize("pattern", [PATTERNS[2], PATTERNS[5], PER_LAYER[1]], ids=lambda pattern: pattern.label)
def test_what_is_better_stays(pattern):
    p = problem(4, pattern, rows=6, inputs=40, tokens=300)
    first = alps(p.weight, p.gram, p.mask, pattern, ALPS(refit_iterations=100))
    again = alps(
        p.weight,
        p.gram,
        first.mask,
        pattern,
        ALPS(iterations=1, rho=100.0),
        extra=ExtraInputs(updated_weight=first.weight),
    )
    assert (first.loss_after < first.loss_before).all()
    assert (again.loss_after <= first.loss_after).all()


def test_the_number_of_threads_changes_no_bit():
    p = problem(6, PATTERNS[2], rows=5, inputs=600, tokens=900)
    before, weights = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        weights.append(alps(p.weight, p.gram, p.mask, p.pattern).weight)
    torch.set_num_threads(before)
    assert torch.equal(*weights)


@pytest.mark.parametrize("pattern", [PerRow(sparsity=0.5), PerLayer(sparsity=0.6), PATTERNS[2]], ids=lambda p: p.label)
def test_no_dead_input_takes_the_place_of_a_live_one(pattern):
    """An outlier raises the mean of the diagonal, and so the norm that damping gives to dead inputs."""
    p = problem(2, pattern, rows=16, inputs=48, tokens=200, degenerate="dead inputs")
    scale = torch.ones(48)
    scale[1] = 30
    gram, dead = p.gram * torch.outer(scale, scale), torch.arange(48) % 3 == 0
    refined = alps(p.weight, gram, p.mask, pattern)
    zeroed = alps(p.weight.masked_fill(dead, 0), gram, p.mask, pattern)
    assert float(refined.loss_after.sum()) == pytest.approx(float(zeroed.loss_after.sum()), rel=1e-6)
    if isinstance(pattern, PerRow | PerLayer):
        assert not refined.mask[:, dead].any()
