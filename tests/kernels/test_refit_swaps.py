"""The backends of refit swaps against brute force, and against each other."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DEGENERATE, PATTERNS, PER_LAYER, Problem, problem, problems

from prunelib import PerRow, select
from prunelib.kernels import cpu_common as compiled
from prunelib.kernels.interface import MAX_SWEEPS, OF_ROWS
from prunelib.kernels.refit_swaps import cpu, reference
from prunelib.refiners import refit_swaps
from prunelib.refiners.refit_swaps import standardise
from prunelib.runtime.compute import Compute

BACKENDS = [cpu, reference]
ALL = refit_swaps.RefitSwaps(refit="all")


def least_squares(w, G, m):
    """The weights x, 0 where pruned, of the least (w - x)^T G (w - x)."""
    x = np.zeros(len(w))
    if m.any():
        x[m] = np.linalg.solve(G[np.ix_(m, m)], (G @ w)[m])
    return x


def least_loss(w, G, m):
    e = w - least_squares(w, G, m)
    return float(e @ G @ e)


def best_swap(w, G, m, group):
    """(change of the least-squares loss, u, j) of the best swap, or None where no pair exists."""
    now = least_loss(w, G, m)
    pairs = oracles.swap_pairs(m, group)
    return min(((least_loss(w, G, oracles.swapped(m, u, j)) - now, u, j) for u, j in pairs), default=None)


def best_swaps(w, G, m, group):
    """Best improvement until none."""
    while (best := best_swap(w, G, m, group)) and best[0] < -reference.IMPROVEMENT * float(w @ w):
        m = oracles.swapped(m, *best[1:])
    return m


def standardised(p):
    """The layer as backends get it, and as oracles read it."""
    layer = standardise(p.weight, p.gram)
    return layer, layer.weight.numpy(), layer.gram.double().numpy()


def optimum(backend, p, threads=1):
    """All rows of a backend's results, in order."""
    layer = standardise(p.weight, p.gram)
    parts = backend.swap_to_optimum(layer.weight, layer.gram, p.mask, p.group, threads)
    ordered = [(results, x) for _, results, x in sorted(parts, key=lambda part: part[0].start)]
    joined = {name: torch.cat([getattr(results, name) for results, _ in ordered]) for name in OF_ROWS}
    return {**joined, "x": torch.cat([x for _, x in ordered])}


def test_the_change_of_every_swap_is_the_difference_of_least_squares_losses():
    p = problem(0, PATTERNS[2], rows=3, inputs=9, tokens=40)
    layer, W, G = standardised(p)
    changes = reference.swap_changes(layer.weight, layer.gram.double(), p.mask, p.group)
    for r, (w, m) in enumerate(zip(W, p.mask.numpy(), strict=True)):
        for u, j in oracles.swap_pairs(m, p.group):
            expected = least_loss(w, G, oracles.swapped(m, u, j)) - least_loss(w, G, m)
            assert changes[r, u, j].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def partial_change(w, G, x, u, j):
    """What a swap changes if only the restored weight is re-estimated (L0Learn's partial swap)."""
    c = G @ (w - x)
    return 2 * x[u] * c[u] + x[u] ** 2 * G[u, u] - (c[j] + x[u] * G[u, j]) ** 2 / G[j, j]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_swap_that_pays_only_with_all_weights_re_estimated_is_found(backend):
    """The output is input 2 = (1, 1, 0); inputs 0 = (1, 0, 0) and 1 = (0, 1, 1/2) are kept, either can go for it."""
    features = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.5, 0.0]])
    mask = torch.tensor([[True, True, False]])
    p = Problem(torch.tensor([[0.0, 0.0, 1.0]]), features.T @ features, mask, PerRow(sparsity=1 / 3))
    w, G = p.weight[0].double().numpy(), p.gram.double().numpy()
    x = least_squares(w, G, mask[0].numpy())
    assert min(partial_change(w, G, x, u, 2) for u in (0, 1)) > 0
    result = optimum(backend, p)
    assert result["mask"][0, 2]
    assert result["loss_before"].item() > 0.05
    assert result["loss_after"].item() < 1e-5


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.label)
def test_the_plain_backend_makes_the_best_swaps_of_brute_force(pattern):
    p = problem(1, pattern, rows=3, inputs=16, tokens=50)
    result = optimum(reference, p)
    _, W, G = standardised(p)
    for r in range(3):
        np.testing.assert_array_equal(result["mask"][r].numpy(), best_swaps(W[r], G, p.mask[r].numpy(), p.group))


@settings(max_examples=60)
@given(problems(max_inputs=10))
def test_both_backends_end_in_an_optimum_by_brute_force(p):
    _, W, G = standardised(p)
    for backend in BACKENDS:
        result = optimum(backend, p)
        assert (result["sweeps"] < MAX_SWEEPS).all()
        for w, m in zip(W, result["mask"].numpy(), strict=True):
            best = best_swap(w, G, m, p.group)
            assert best is None or best[0] >= -1e-7 * float(w @ w)


@settings(max_examples=80)
@given(problems(max_inputs=24))
def test_losses_and_weights_are_those_of_least_squares_on_the_masks(p):
    _, W, G = standardised(p)
    result = optimum(cpu, p)
    assert (result["loss_after"] <= result["loss_before"] + 1e-9).all()
    shape = (len(W), -1, p.group)
    torch.testing.assert_close(result["mask"].view(shape).sum(-1), p.mask.view(shape).sum(-1))
    for r, w in enumerate(W):
        before, after = (least_loss(w, G, mask[r].numpy()) for mask in (p.mask, result["mask"]))
        assert result["loss_before"][r].item() == pytest.approx(before, rel=1e-6, abs=1e-9 * float(w @ w))
        assert result["loss_after"][r].item() == pytest.approx(after, rel=1e-6, abs=1e-9 * float(w @ w))
        x = least_squares(w, G, result["mask"][r].numpy())
        assert np.abs(result["x"][r].numpy() - x).max() <= 1e-6 * np.abs(x).max(initial=1)


@settings(max_examples=60)
@given(problems())
def test_each_backend_finds_nothing_to_improve_in_the_others_optimum(p):
    for first, second in ((cpu, reference), (reference, cpu)):
        found = optimum(first, p)
        again = optimum(second, Problem(p.weight, p.gram, found["mask"], p.pattern))
        size = (standardise(p.weight, p.gram).weight ** 2).sum(dim=1)
        assert (found["loss_after"] - again["loss_after"] <= 1e-7 * size).all()
        torch.testing.assert_close(again["loss_before"], found["loss_after"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (1, 2), (33, 5), (35, 44), (3, 203)])
def test_awkward_sizes_are_the_same_whatever_the_threads(degenerate, rows, inputs):
    p = problem(3, PATTERNS[2], rows, inputs, tokens=inputs, degenerate=degenerate)
    one, three = optimum(cpu, p, threads=1), optimum(cpu, p, threads=3)
    for name, value in one.items():
        torch.testing.assert_close(value, three[name], rtol=0, atol=0)
    assert one["x"].isfinite().all()
    assert (one["sweeps"] < MAX_SWEEPS).all()


def test_chunks_change_nothing(monkeypatch):
    p = problem(4, PATTERNS[1], rows=9, inputs=61, tokens=100)
    whole = optimum(cpu, p)
    monkeypatch.setattr(compiled, "_CHUNK_ROWS", 2)
    for name, value in optimum(cpu, p).items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=0)


def test_weights_are_those_of_least_squares_after_a_hundred_swaps():
    p = problem(5, PATTERNS[1], rows=2, inputs=240, tokens=300)
    result = optimum(cpu, p)
    assert (result["swaps"] >= 50).all()
    _, W, G = standardised(p)
    for w, m, x in zip(W, result["mask"].numpy(), result["x"].numpy(), strict=True):
        np.testing.assert_allclose(x, least_squares(w, G, m), rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("keep", [0, 1, 11, 12])
def test_rows_may_keep_any_number(backend, keep):
    p = problem(6, PER_LAYER[0], rows=2, inputs=12, tokens=40)
    mask = (torch.arange(12) < keep).repeat(2, 1)
    result = optimum(backend, Problem(p.weight, p.gram, mask, p.pattern))
    assert (result["mask"].sum(dim=1) == keep).all()
    assert result["optimal"].all()
    assert (result["x"].masked_select(~result["mask"]) == 0).all()
    if keep == 12:
        torch.testing.assert_close(result["x"], standardise(p.weight, p.gram).weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("tokens", [1, 20, 150])
def test_fewer_tokens_than_inputs_end_finite(tokens):
    """The Gram matrix is singular up to the rounding of float32, which no ridge of its size need outweigh."""
    p = problem(7, PATTERNS[2], rows=3, inputs=300, tokens=tokens)
    result = optimum(cpu, p)
    assert result["x"].isfinite().all()
    assert (result["sweeps"] < MAX_SWEEPS).all()
    assert (result["loss_after"] <= result["loss_before"]).all()


@st.composite
def nearly_singular(draw):
    """A layer whose inputs are dependent up to a small part."""
    inputs = draw(st.integers(2, 10))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    few = torch.randn(draw(st.integers(1, inputs)), inputs, generator=generator)
    small = 10.0 ** -draw(st.integers(0, 6)) * torch.randn(3 * inputs, inputs, generator=generator)
    gram = few.T @ few + small.T @ small
    weight, pattern = torch.randn(3, inputs, generator=generator), PerRow(sparsity=0.5)
    mask = torch.rand(3, inputs, generator=generator)
    return Problem(weight, (gram + gram.T) / 2, select(mask, pattern), pattern)


def exact_loss(w, G, m):
    """The least-squares loss on G itself, whose negative eigenvalues are rounding errors."""
    sizes, vectors = np.linalg.eigh(G)
    root = np.sqrt(sizes.clip(0))[:, None] * vectors.T
    x = np.linalg.lstsq(root[:, m], root @ w, rcond=None)[0]
    return float(((root @ w - root[:, m] @ x) ** 2).sum())


@pytest.mark.parametrize("plain", [False, True])
@settings(max_examples=150)
@given(nearly_singular())
def test_no_swap_improves_an_optimal_row_beyond_the_bound_whatever_the_inputs(plain, p):
    found = refit_swaps.refit_swaps(p.weight, p.gram, p.mask, p.pattern, ALL, compute=Compute(reference=plain))
    G, ridge = p.gram.double().numpy(), 4 * torch.finfo(torch.float32).eps * len(p.gram) ** 0.5
    for r in found.optimal.nonzero()[:, 0].tolist():
        w, m = p.weight[r].double().numpy(), found.mask[r].numpy()
        allowed = reference.BOUND * ridge * float((w**2 * np.diag(G)).sum())
        for u, j in oracles.swap_pairs(m, p.group):
            assert float(found.loss_after[r]) - exact_loss(w, G, oracles.swapped(m, u, j)) <= allowed


@pytest.mark.parametrize("plain", [False, True])
def test_every_row_of_an_ordinary_layer_is_proven(plain):
    p = problem(5, PATTERNS[1], rows=8, inputs=48, tokens=400)
    assert refit_swaps.refit_swaps(
        p.weight, p.gram, p.mask, p.pattern, ALL, compute=Compute(reference=plain)
    ).optimal.all()
