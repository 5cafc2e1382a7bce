"""SparseFW as a user calls it."""

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems

from prunelib import NOfM, PerLayer, PerRow, pruning_error
from prunelib.algebra.objective import row_losses
from prunelib.errors import NumericalError, PatternError
from prunelib.refiners.sparsefw import SparseFW, rounded, salient, sparsefw
from prunelib.runtime.compute import Compute

PAPER = SparseFW(step="open_loop", relaxation="plain", rounding="largest", alpha=0.5, iterations=40, tolerance=0)
METHODS = [
    SparseFW(step=step, relaxation=relaxation, rounding=rounding, iterations=60)
    for step, relaxation, rounding in product(
        ("open_loop", "line_search", "pairwise"), ("plain", "tight"), ("largest", "path")
    )
]


def paper_mask(w, G, mask, size, keep, alpha, iterations):
    """The paper on one row in float64: alpha-fixing, Frank-Wolfe on the rest of the budget, the largest masses."""
    fixed = np.zeros(len(w), bool)
    saliency = np.abs(w) * np.sqrt(np.diag(G))
    for low in range(0, len(w), size):
        kept = [j for j in range(low, low + size) if mask[j]]
        fixed[sorted(kept, key=lambda j: -saliency[j])[: int(alpha * keep)]] = True
    m = mask.astype(float)
    for t in range(iterations):
        gradient = -2 * w * (G @ (w - m * w))
        v = fixed.astype(float)
        for low in range(0, len(w), size):
            free = sorted((j for j in range(low, low + size) if not fixed[j]), key=gradient.__getitem__)
            for j in free[: keep - int(alpha * keep)]:
                v[j] = gradient[j] < 0
        m = m + 2 / (t + 2) * (v - m)
    result = np.zeros(len(w), bool)
    for low in range(0, len(w), size):
        ranked = sorted(range(low, low + size), key=lambda j: (not fixed[j], -m[j], j))
        result[ranked[:keep]] = True
    return result


def least_losses(p):
    """The least loss of each row by enumeration; never below 0, where the rounding of a Gram matrix can take it."""
    size, keep = p.pattern.groups(*p.weight.shape)
    losses = [oracles.global_optimum(w, p.gram.double().numpy(), size, keep) for w in p.weight.numpy()]
    return np.maximum(losses, 0)


@pytest.mark.parametrize("method", METHODS, ids=lambda s: f"{s.step}-{s.relaxation}-{s.rounding}")
@settings(max_examples=25)
@given(problems(patterns=PATTERNS + PER_LAYER))
def test_no_row_or_matrix_gets_worse_and_counts_stay(method, p):
    result = sparsefw(p.weight, p.gram, p.mask, p.pattern, method)
    size, keep = p.pattern.groups(*p.mask.shape)
    assert (result.mask.reshape(-1, size).sum(dim=1) == keep).all()
    torch.testing.assert_close(result.loss_before, row_losses(p.weight, p.gram, p.mask))
    torch.testing.assert_close(result.loss_after, row_losses(p.weight, p.gram, result.mask))
    assert result.loss_after.sum() <= result.loss_before.sum()
    assert isinstance(p.pattern, PerLayer) or (result.loss_after <= result.loss_before).all()
    assert 0 <= result.bound <= result.loss_after.sum() * (1 + 1e-6)


@pytest.mark.parametrize("pattern", [PATTERNS[2], PATTERNS[4], PATTERNS[6]], ids=lambda pattern: pattern.label)
def test_the_papers_settings_give_the_papers_mask(pattern):
    p = problem(1, pattern, rows=6, inputs=16, tokens=80)
    result = sparsefw(p.weight, p.gram, p.mask, pattern, PAPER)
    size, keep = pattern.groups(6, 16)
    improved = 0
    for r in range(6):
        w, G, m = p.weight[r].double().numpy(), p.gram.double().numpy(), p.mask[r].numpy()
        expected = paper_mask(w, G, m, size, keep, 0.5, 40)
        better = oracles.loss(w, G, expected) < oracles.loss(w, G, m)
        np.testing.assert_array_equal(result.mask[r].numpy(), expected if better else m)
        improved += better
    assert improved > 0


@pytest.mark.parametrize("method", [*METHODS, PAPER], ids=lambda s: f"{s.step}-{s.relaxation}-{s.rounding}-{s.alpha}")
@pytest.mark.parametrize(
    "pattern",
    [PerRow(sparsity=0.5), NOfM(keep=1, group=4), *(PerRow(sparsity=pruned / 8) for pruned in (1, 7))],
    ids=lambda pattern: pattern.label,
)
def test_the_bound_lies_below_the_best_of_all_masks(method, pattern):
    for seed in range(4):
        p = problem(seed, pattern, rows=3, inputs=8, tokens=30)
        result = sparsefw(p.weight, p.gram, p.mask, pattern, method)
        least = least_losses(p)
        assert result.bound <= least.sum() * (1 + 1e-9)
        assert (result.loss_after.numpy() >= least * (1 - 1e-9)).all()


def test_the_bound_of_a_matrix_lies_below_the_best_of_all_its_masks():
    pattern = PerLayer(sparsity=0.5)
    for seed in range(4):
        p = problem(seed, pattern, rows=2, inputs=6, tokens=30)
        W, G = p.weight.numpy(), p.gram.double().numpy()
        masks = (np.array(bits).reshape(2, 6) for bits in product([False, True], repeat=12) if sum(bits) == 6)
        least = min(oracles.losses(W, G, mask).sum() for mask in masks)
        result = sparsefw(p.weight, p.gram, p.mask, pattern)
        assert result.bound <= least * (1 + 1e-9)
        assert result.loss_after.sum() >= least * (1 - 1e-9)


def test_the_bound_says_something_and_the_default_beats_the_paper():
    p = problem(2, PATTERNS[2], rows=24, inputs=64, tokens=400)
    best, paper = (sparsefw(p.weight, p.gram, p.mask, p.pattern, s) for s in (SparseFW(), PAPER))
    assert best.loss_after.sum() < paper.loss_after.sum()
    assert best.bound > 0.3 * best.loss_after.sum()


@pytest.mark.parametrize("pattern", [*PATTERNS, *PER_LAYER], ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.29, 0.5, 0.9, 0.99])
def test_the_most_salient_kept_weights_are_fixed_and_stay(pattern, alpha):
    p = problem(3, pattern, rows=4, inputs=40, tokens=100)
    size, keep = pattern.groups(4, 40)
    fixed = salient(p.weight, p.gram, p.mask, pattern, alpha)
    assert (fixed.reshape(-1, size).sum(dim=1) == int(keep * Fraction(str(alpha)))).all()
    assert not (fixed & ~p.mask).any()
    saliency = (p.weight.abs() * p.gram.diagonal().sqrt()).double()
    least = saliency.masked_fill(~fixed, torch.inf).reshape(-1, size).amin(dim=1)
    others = saliency.masked_fill(fixed | ~p.mask, 0).reshape(-1, size).amax(dim=1)
    assert (least >= others).all()
    for step in ("open_loop", "line_search", "pairwise"):
        result = sparsefw(p.weight, p.gram, p.mask, pattern, SparseFW(alpha=alpha, step=step, iterations=10))
        assert (result.mask[fixed]).all()
        assert (result.mask.reshape(-1, size).sum(dim=1) == keep).all()


def test_rounding_keeps_what_is_fixed_then_the_largest_then_the_lower_place():
    pattern = NOfM(keep=2, group=4)
    mass = torch.tensor([[0.2, 0.9, 0.9, 0.9], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.1, 0.0]]).double()
    fixed = torch.zeros(3, 4, dtype=torch.bool)
    fixed[0, 0] = True
    expected = [[True, True, False, False], [True, True, False, False], [True, False, True, False]]
    assert rounded(mass, fixed, pattern).tolist() == expected


@settings(max_examples=60)
@given(problems(max_inputs=8), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.9]))
def test_rounding_keeps_as_much_mass_as_any_mask_that_has_what_is_fixed(p, seed, alpha):
    generator = torch.Generator().manual_seed(seed)
    mass = torch.randint(0, 4, p.mask.shape, generator=generator).double() / 3
    fixed = salient(p.weight, p.gram, p.mask, p.pattern, alpha)
    mask, (size, keep) = rounded(mass, fixed, p.pattern), p.pattern.groups(*p.mask.shape)
    assert mask[fixed].all()
    for group, masses, held in zip(*(each.reshape(-1, size) for each in (mask, mass, fixed)), strict=True):
        others = combinations((~held).nonzero()[:, 0].tolist(), keep - int(held.sum()))
        most = max(float(masses[held].sum() + masses[list(chosen)].sum()) for chosen in others)
        assert group.sum() == keep
        assert masses[group].sum() == pytest.approx(most)


@pytest.mark.parametrize("pattern", [PATTERNS[2], PATTERNS[5], PER_LAYER[1]], ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("step", ["line_search", "pairwise"])
def test_the_number_of_threads_changes_nothing(pattern, step):
    p = problem(4, pattern, rows=40, inputs=300 if isinstance(pattern, PerRow) else 44, tokens=400)
    threads, results = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(
            sparsefw(p.weight, p.gram, p.mask, pattern, SparseFW(step=step, iterations=50), compute=Compute(count))
        )
    torch.set_num_threads(threads)
    torch.testing.assert_close(results[0].mask, results[1].mask)


def test_blocks_of_rows_change_nothing(monkeypatch):
    p = problem(5, PATTERNS[2], rows=9, inputs=24, tokens=100)
    whole = sparsefw(p.weight, p.gram, p.mask, p.pattern)
    monkeypatch.setattr("prunelib.refiners.sparsefw._BLOCK_ROWS", 4)
    told = []
    parts = sparsefw(p.weight, p.gram, p.mask, p.pattern, progress=lambda *figures: told.append(figures))
    torch.testing.assert_close(parts.mask, whole.mask)
    assert parts.bound == pytest.approx(whole.bound)
    rows, before, after = map(sum, zip(*told, strict=True))
    assert rows == 9
    assert before == pytest.approx(whole.loss_before.sum().item())
    assert after == pytest.approx(whole.loss_after.sum().item())


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize("pattern", [PATTERNS[2], PATTERNS[5], PER_LAYER[1]], ids=lambda pattern: pattern.label)
def test_degenerate_layers_end_finite(degenerate, pattern):
    p = problem(6, pattern, rows=9, inputs=32, tokens=7, degenerate=degenerate)
    result = sparsefw(p.weight, p.gram, p.mask, pattern)
    assert result.loss_after.isfinite().all()
    assert 0 <= result.bound <= result.loss_after.sum()


def test_damping_optimises_another_objective_and_reports_the_true_one():
    p = problem(7, PATTERNS[2], rows=8, inputs=32, tokens=40)
    plain, noisy = (sparsefw(p.weight, p.gram, p.mask, p.pattern, SparseFW(damping=d)) for d in (0.0, 1.0))
    assert (plain.mask != noisy.mask).any()
    assert pruning_error(p.weight, p.gram, noisy.mask) == pytest.approx(noisy.loss_after.sum().item())
    assert noisy.bound <= plain.loss_after.sum()


@settings(max_examples=20)
@given(st.sampled_from([torch.bfloat16, torch.float64]), problems())
def test_weights_of_any_float_type_are_refined(dtype, p):
    result = sparsefw(p.weight.to(dtype), p.gram, p.mask, p.pattern)
    assert (result.loss_after <= result.loss_before).all()


def test_bad_input_is_refused_in_one_line():
    p = problem(8, PATTERNS[4], rows=4, inputs=8, tokens=60)
    with pytest.raises(PatternError, match="groups do not keep exactly 1 of 4"):
        sparsefw(p.weight, p.gram, ~p.mask, p.pattern)
    with pytest.raises(NumericalError, match="weight: NaN"):
        sparsefw(p.weight * torch.nan, p.gram, p.mask, p.pattern)
    with pytest.raises(ValidationError, match="alpha"):
        SparseFW(alpha=1.0)


@pytest.mark.parametrize("step", ["line_search", "pairwise"])
def test_the_bound_of_a_large_matrix_is_that_of_any_number_of_threads(step):
    p = problem(5, PerLayer(sparsity=0.6), rows=900, inputs=128, tokens=400)  # torch splits sums of over 32,768
    chosen, threads, bounds = SparseFW(step=step, iterations=10), torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        bounds.append(sparsefw(p.weight, p.gram, p.mask, p.pattern, chosen, compute=Compute(1)).bound)
    torch.set_num_threads(threads)
    assert len(set(bounds)) == 1


@pytest.mark.parametrize("power", [-30, -56, -80])
def test_a_zero_row_does_not_decide_the_scale_of_the_others(power):
    p = problem(4, PerLayer(sparsity=0.5), rows=5, inputs=16, tokens=100)
    weight = p.weight.clone()
    weight[2] = 0
    expected, found = (sparsefw(weight * scale, p.gram, p.mask, p.pattern) for scale in (1, 2.0**power))
    assert torch.equal(found.mask, expected.mask)
    assert float(found.loss_after.sum()) == pytest.approx(float(expected.loss_after.sum()) * 4.0**power)
    assert found.bound == pytest.approx(expected.bound * 4.0**power)
