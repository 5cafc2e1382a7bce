"""The relaxation: its loss, oracle, bound and shift, Frank-Wolfe, and relaxed swaps over a whole layer."""

from itertools import product

import numpy as np
import oracles
import pytest
import torch
from hypothesis import assume, given, settings
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems

from prunelib import NOfM, PerLayer, PerRow, select
from prunelib.algebra.objective import row_losses
from prunelib.errors import NumericalError
from prunelib.relaxation import frankwolfe, pairwise
from prunelib.relaxation.convexity import plain_share, tight_share
from prunelib.relaxation.problem import dual_gap, evaluate, lower_bound, relax, vertex

SHARES = [plain_share, tight_share]
TINY = [PerRow(sparsity=0.5), NOfM(keep=1, group=4), NOfM(keep=3, group=4), PerLayer(sparsity=0.6)]
STEPS = {
    "open_loop": lambda q, m, n, tol: frankwolfe.iterates(q, m, frankwolfe.open_loop, n, tol),
    "line_search": lambda q, m, n, tol: frankwolfe.iterates(q, m, frankwolfe.line_search, n, tol),
    "pairwise": pairwise.relaxed,
}


def relaxation(p, share=plain_share, fixed=None):
    fixed = torch.zeros_like(p.mask) if fixed is None else fixed
    return relax(p.weight, p.gram, share(p.gram), fixed, p.pattern)


def masses(p, seed=0):
    """Masses between the start and another mask, with the pattern's sum in each group."""
    generator = torch.Generator().manual_seed(seed)
    other = select(torch.rand(p.mask.shape, generator=generator), p.pattern)
    share = torch.rand(1, generator=generator, dtype=torch.float64)
    return p.mask + share * (other.double() - p.mask.double())


def masks(shape, size, keep):
    """All masks of a pattern, as arrays."""
    places = shape[0] * shape[1]
    for bits in product([False, True], repeat=places):
        groups = np.array(bits).reshape(-1, size)
        if (groups.sum(axis=1) == keep).all():
            yield groups.reshape(shape)


def least_loss(p):
    """The least loss of each row, or of the matrix where rows compete, over all masks of the pattern.

    Never below 0, where the rounding of a float32 Gram matrix of rank 1 can take it.
    """
    W, G = p.weight.numpy(), p.gram.double().numpy()
    size, keep = p.pattern.groups(*W.shape)
    if size > W.shape[1]:
        return np.array([max(min(oracles.losses(W, G, M).sum() for M in masks(W.shape, size, keep)), 0)])
    return np.array([max(oracles.global_optimum(w, G, size, keep), 0) for w in W])


def relaxed_loss(w, G, d, m):
    """f of one row, from its definition."""
    p = (1 - m) * w
    return float(p @ (G - np.diag(d)) @ p + (d * w**2 * (1 - m)).sum())


def paper_frank_wolfe(w, G, m, size, keep, iterations):
    """Algorithm 1 of the paper on one row in float64, step 2 / (t + 2)."""
    for t in range(iterations):
        gradient = -2 * w * (G @ (w - m * w))
        v = np.zeros(len(w))
        for low in range(0, len(w), size):
            for j in sorted(range(low, low + size), key=gradient.__getitem__)[:keep]:
                v[j] = gradient[j] < 0
        m = m + 2 / (t + 2) * (v - m)
    return m


@pytest.mark.parametrize("share", SHARES)
@settings(max_examples=80)
@given(problems(patterns=PATTERNS + PER_LAYER))
def test_on_masks_the_relaxed_loss_is_the_pruning_error(share, p):
    q = relaxation(p, share)
    losses, _ = evaluate(q, p.mask.double())
    error = q.sum(row_losses(p.weight, (p.gram + p.gram.T) / 2, p.mask))
    largest = q.sum(row_losses(p.weight.abs(), p.gram.abs(), p.mask))
    assert ((losses * q.loss_scale[: q.problems] - error).abs() <= 1e-6 * largest).all()


@pytest.mark.parametrize("share", SHARES)
def test_the_relaxed_loss_and_its_gradient_are_those_of_the_definition(share):
    p = problem(1, PATTERNS[2], rows=3, inputs=12, tokens=60)
    q, m = relaxation(p, share), masses(p).requires_grad_()
    losses, gradient = evaluate(q, m)
    for r in range(3):
        w, G, d = q.weight[r].double().numpy(), q.gram.double().numpy(), q.shift.numpy()
        assert losses[r].item() == pytest.approx(relaxed_loss(w, G, d, m[r].detach().numpy()))
    (expected,) = torch.autograd.grad(losses.sum(), m)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("pattern", TINY, ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("seed", range(5))
def test_the_oracle_is_the_best_vertex_that_keeps_what_is_fixed(pattern, seed):
    p = problem(seed, pattern, rows=2, inputs=4, tokens=20)
    size, keep = pattern.groups(2, 4)
    fixed = p.mask & (torch.rand(2, 4, generator=torch.Generator().manual_seed(seed)) < 0.4)
    gradient = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
    found = vertex(relaxation(p, fixed=fixed), gradient)
    vertices = (torch.tensor(bits).reshape(2, 4) for bits in product([0.0, 1.0], repeat=8))
    fitting = (v for v in vertices if (v.reshape(-1, size).sum(dim=1) <= keep).all() and (v[fixed] == 1).all())
    least = min(float((gradient * v).sum()) for v in fitting)
    assert float((gradient * found).sum()) == pytest.approx(least)
    assert (found[fixed] == 1).all()
    assert (found.reshape(-1, size).sum(dim=1) <= keep).all()


@pytest.mark.parametrize("share", SHARES)
@settings(max_examples=60)
@given(problems(patterns=PATTERNS + PER_LAYER))
def test_the_gap_is_not_negative_and_bounds_the_distance_to_any_feasible_point(share, p):
    q, m = relaxation(p, share), masses(p)
    losses, gradient = evaluate(q, m)
    gap = dual_gap(q, m, gradient)
    scale = q.sum(row_losses(q.weight.abs(), q.gram.abs(), torch.zeros_like(p.mask)))
    assert (gap >= -1e-9 * scale).all()
    for seed in range(5):
        assert (evaluate(q, masses(p, seed))[0] >= losses - gap - 1e-6 * scale).all()


@pytest.mark.parametrize("share", SHARES)
@settings(max_examples=60)
@given(problems(max_inputs=8, patterns=[pattern for pattern in PATTERNS + TINY if pattern.kind != "per_layer"]))
def test_no_mask_lies_below_the_bound(share, p):
    assume(p.weight.shape[1] <= 8)
    for seed in range(3):
        bound = lower_bound(relaxation(p, share), masses(p, seed)).numpy()
        assert (bound <= least_loss(p) * (1 + 1e-6)).all()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_no_mask_of_the_matrix_lies_below_the_bound(share, degenerate):
    for seed in range(5):
        p = problem(seed, PerLayer(sparsity=0.6), rows=2, inputs=5, tokens=5, degenerate=degenerate)
        bound = lower_bound(relaxation(p, share), masses(p, seed)).numpy()
        assert (bound <= least_loss(p) * (1 + 1e-6)).all()


@settings(max_examples=60)
@given(problems())
def test_the_shifted_gram_matrix_has_no_negative_eigenvalue(p):
    for share in SHARES:
        q = relaxation(p, share)
        assert torch.linalg.eigvalsh(q.gram.double() - torch.diag(q.shift)).min() >= -1e-12
        assert (q.shift <= q.gram.diagonal()).all()


def test_the_tight_shift_is_part_of_each_inputs_own_variance():
    p = problem(2, PATTERNS[1], rows=1, inputs=20, tokens=400)
    share, G = tight_share(p.gram), p.gram.double()
    multiple = share * G.diagonal() * torch.linalg.inv(G).diagonal()
    torch.testing.assert_close(multiple, multiple[:1].expand(20))
    more = torch.diag((share + 2e-3 * share / multiple) * G.diagonal())
    assert torch.linalg.eigvalsh(G - more).min() < 0
    torch.testing.assert_close(plain_share(p.gram), torch.zeros(20, dtype=torch.float64))
    torch.testing.assert_close(tight_share(torch.eye(3)), torch.full((3,), 1 - 2.0**-10, dtype=torch.float64))


@pytest.mark.parametrize("pattern", [*PATTERNS[1:7], PER_LAYER[1]], ids=lambda pattern: pattern.label)
def test_the_tighter_the_relaxation_the_higher_the_bound(pattern):
    p = problem(3, pattern, rows=8, inputs=32, tokens=300)
    plain, tight = (relaxation(p, share) for share in SHARES)
    bounds = [
        max(lower_bound(q, m).sum() for m in pairwise.relaxed(q, p.mask.double(), 2000, 1e-4)) for q in (plain, tight)
    ]
    assert bounds[0] < bounds[1]


def test_the_line_search_finds_the_minimum_along_the_segment():
    p = problem(4, PATTERNS[2], rows=6, inputs=16, tokens=60)
    q, start = relaxation(p), masses(p)
    _, gradient = evaluate(q, start)
    towards = vertex(q, gradient) - start
    losses = [evaluate(q, start + s * towards)[0] for s in (0.0, 0.5, 1.0)]
    curvature = 2 * (losses[0] - 2 * losses[1] + losses[2])
    slope = losses[0] - losses[2] + curvature
    step = frankwolfe.line_search(0, frankwolfe.Segment(slope, curvature))
    found = evaluate(q, start + step[:, None] * towards)[0]
    grid = torch.stack([evaluate(q, start + s * towards)[0] for s in torch.linspace(0, 1, 201)])
    assert (found <= grid.amin(dim=0) + 1e-9).all()
    flat = frankwolfe.Segment(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    assert frankwolfe.line_search(0, flat).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("pattern", [PATTERNS[1], PATTERNS[5], PATTERNS[6]], ids=lambda pattern: pattern.label)
def test_open_loop_iterates_are_those_of_the_paper(pattern):
    p = problem(5, pattern, rows=3, inputs=16, tokens=60)
    *_, found = STEPS["open_loop"](relaxation(p), p.mask.double(), 40, 0)
    for r in range(3):
        w, G, m = p.weight[r].double().numpy(), p.gram.double().numpy(), p.mask[r].double().numpy()
        expected = paper_frank_wolfe(w, G, m, *pattern.groups(3, 16), iterations=40)
        np.testing.assert_allclose(found[r].numpy(), expected, atol=1e-5)


def test_open_loop_iterates_of_a_matrix_are_those_of_the_paper_on_its_rows_in_one():
    p = problem(5, PER_LAYER[1], rows=3, inputs=16, tokens=60)
    *_, found = STEPS["open_loop"](relaxation(p), p.mask.double(), 40, 0)
    w, m = (value.double().reshape(-1).numpy() for value in (p.weight, p.mask))
    G = np.kron(np.eye(3), p.gram.double().numpy())
    expected = paper_frank_wolfe(w, G, m, *p.pattern.groups(3, 16), iterations=40)
    np.testing.assert_allclose(found.reshape(-1).numpy(), expected, atol=1e-5)


def test_float32_products_do_not_drift():
    p = problem(6, PATTERNS[2], rows=8, inputs=64, tokens=200)
    q = relaxation(p)
    (optimum,) = pairwise.relaxed(q, p.mask.double(), 1000, 1e-4)
    for step in ("open_loop", "line_search"):
        *_, found = STEPS[step](q, p.mask.double(), 1000, 0)
        assert (evaluate(q, found)[0] <= 1.02 * evaluate(q, optimum)[0]).all()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("pattern", [*PATTERNS[1:7], *PER_LAYER], ids=lambda pattern: pattern.label)
def test_all_steps_reach_the_same_optimum(share, pattern):
    """On a layer without negative entries every weight is worth keeping, so that the budget is always spent."""
    p = problem(7, pattern, rows=6, inputs=24, tokens=100)
    x = torch.rand(100, 24, generator=torch.Generator().manual_seed(7))
    p = type(p)(p.weight.abs(), x.T @ x, p.mask, pattern)
    q = relaxation(p, share)
    bounds, losses = [], []
    for step in STEPS.values():
        *_, last = step(q, p.mask.double(), 2000, 1e-3)
        assert last.sum() == pytest.approx(p.mask.sum().item(), rel=1e-6)
        losses.append(evaluate(q, last)[0])
        bounds.append(losses[-1] - dual_gap(q, last, evaluate(q, last)[1]))
    highest, lowest = torch.stack(bounds).amax(dim=0), torch.stack(losses).amin(dim=0)
    assert (highest <= lowest * (1 + 1e-5)).all()
    assert (torch.stack(losses).amax(dim=0) <= 1.02 * lowest).all()


def test_problems_that_are_solved_rest():
    p = problem(8, PATTERNS[1], rows=4, inputs=16, tokens=60, degenerate="zero rows")
    iterates = list(STEPS["line_search"](relaxation(p), p.mask.double(), 10_000, 0.5))
    assert len(iterates) < 200
    assert all((m[::2] - iterates[0][::2]).abs().max() == 0 for m in iterates)


@pytest.mark.parametrize("pattern", PER_LAYER, ids=lambda pattern: pattern.label)
def test_rows_that_compete_share_out_the_budget_at_one_price(pattern):
    p = problem(9, pattern, rows=12, inputs=32, tokens=200)
    q = relaxation(p, tight_share)
    *_, last = pairwise.relaxed(q, p.mask.double(), 2000, 1e-3)
    losses, gradient = evaluate(q, last)
    assert last.sum() == pytest.approx(q.keep, rel=1e-6)
    assert (dual_gap(q, last, gradient) <= 0.01 * losses).all()
    assert (last.sum(dim=1) - p.mask.sum(dim=1)).abs().max() > 1


@pytest.mark.parametrize("pattern", [*PATTERNS[1:7], PER_LAYER[1]], ids=lambda pattern: pattern.label)
def test_the_path_leads_to_a_better_mask_than_the_cut(pattern):
    p = problem(10, pattern, rows=16, inputs=48, tokens=200)
    q = relaxation(p, tight_share)
    *_, last = pairwise.relaxed(q, p.mask.double(), 2000, 1e-2)
    end = pairwise.followed(q, last)
    size = pattern.groups(16, 48).size
    torch.testing.assert_close(end.reshape(-1, size).sum(dim=1), last.reshape(-1, size).sum(dim=1))
    cut, led = (row_losses(p.weight, p.gram, select(m, pattern)).sum() for m in (last, end))
    assert led < cut


@pytest.mark.parametrize("share", [plain_share, tight_share])
@pytest.mark.parametrize("entry", [torch.nan, -torch.inf])
def test_the_search_for_a_convex_shift_ends(share, entry):
    gram = torch.eye(4)
    gram[0, 1] = gram[1, 0] = entry
    with pytest.raises(NumericalError, match="convex"):
        share(gram)


def test_a_shift_is_found_at_the_lowest_eigenvalue_that_a_gram_matrix_may_have():
    gram = torch.full((4, 4), -1.0).fill_diagonal_(1.0)
    share = plain_share(gram)
    assert torch.linalg.eigvalsh(gram.double() - torch.diag(share)).min() > 0


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("asymmetry", [9e-4, 1e-4, 1e-6])
def test_a_gram_matrix_with_rounding_errors_has_no_bound_above_a_mask(share, asymmetry):
    gram = torch.tensor([[1, 1 + asymmetry], [1, 1]], dtype=torch.float64)
    weight, mask = torch.tensor([[1, 1 - 0.4 * asymmetry]]), torch.tensor([[False, True]])
    problem = relax(weight, gram, share(gram), torch.zeros_like(mask), PerRow(sparsity=0.5))
    losses = [row_losses(weight, gram, m) for m in (mask, ~mask)]
    assert all(lower_bound(problem, m.double()) <= min(losses) for m in (mask, ~mask))
