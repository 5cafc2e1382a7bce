"""The backends of partial refit swaps against brute force, and against each other."""

import oracles
import pytest
import torch
from hypothesis import assume, given, settings
from strategies import DEGENERATE, PATTERNS, Problem, problem, problems

from prunelib import PerRow
from prunelib.kernels import cpu_common as compiled
from prunelib.kernels.interface import OF_ROWS
from prunelib.kernels.partial_refit_swaps import cpu, reference
from prunelib.kernels.refit_swaps.reference import IMPROVEMENT
from prunelib.refiners.refit_swaps import standardise

BACKENDS = [cpu, reference]


def optimum(backend, p, start=None, threads=1):
    """All rows of a backend's results, in order, and the layer as it got it."""
    layer = standardise(p.weight, p.gram)
    start = layer.weight * p.mask if start is None else start
    parts = backend.swap_to_optimum(layer.weight, layer.gram, p.mask, start, p.group, threads)
    ordered = [(results, x) for _, results, x in sorted(parts, key=lambda part: part[0].start)]
    joined = {name: torch.cat([getattr(results, name) for results, _ in ordered]) for name in OF_ROWS}
    return layer.weight.numpy(), layer.gram.double().numpy(), {**joined, "x": torch.cat([x for _, x in ordered])}


def test_the_change_of_every_swap_is_the_difference_of_the_losses():
    p = problem(0, PATTERNS[2], rows=3, inputs=9, tokens=40)
    layer = standardise(p.weight, p.gram)
    W, G, X = layer.weight.numpy(), layer.gram.double().numpy(), (layer.weight * p.mask * 0.9).numpy()
    for w, x, m in zip(W, X, p.mask, strict=True):
        c = torch.from_numpy((w - x) @ G)
        changes, restored = reference.swap_changes(torch.from_numpy(x), c, layer.gram.double(), m, p.group)
        for u, j in oracles.swap_pairs(m.numpy(), p.group):
            after = oracles.refit_swapped(w, G, x, u, j)
            change = oracles.updated_loss(w, G, after) - oracles.updated_loss(w, G, x)
            assert changes[u, j].item() == pytest.approx(change)
            assert restored[u, j].item() == pytest.approx(after[j])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(problems(max_inputs=10))
def test_rows_end_where_no_partial_swap_improves_and_losses_fall(backend, p):
    W, G, result = optimum(backend, p)
    assert result["optimal"].all()
    assert (result["loss_after"] <= result["loss_before"] * (1 + 1e-9) + 1e-12).all()
    shape = (len(p.mask), -1, p.group)
    torch.testing.assert_close(result["mask"].view(shape).sum(-1), p.mask.view(shape).sum(-1))
    for r, (w, m) in enumerate(zip(W, result["mask"].numpy(), strict=True)):
        x = result["x"][r].numpy()
        assert (x[~m] == 0).all()
        loss, scale = oracles.updated_loss(w, G, x), float(w @ w)
        assert result["loss_after"][r].item() == pytest.approx(loss, rel=1e-6, abs=1e-9 * scale)
        assert oracles.least_refit_change(w, G, x, m, p.group) >= -10 * IMPROVEMENT * scale


@settings(max_examples=60)
@given(problems(max_inputs=16))
def test_both_backends_make_the_same_swaps(p):
    assume(p.separable)
    (_, _, found), (_, _, expected) = (optimum(backend, p) for backend in BACKENDS)
    same, tied = (found["mask"] == expected["mask"]).all(dim=1), _tied(p)
    torch.testing.assert_close(found["x"][same & ~tied], expected["x"][same & ~tied], rtol=1e-6, atol=1e-6)
    close = (found["loss_after"] - expected["loss_after"]).abs() <= 1e-6 * expected["loss_before"] + 1e-12
    assert (same | close | tied).all()


def _tied(p):
    """Rows in which some weights, or some inputs, are exactly alike: which swap is made first is then a toss."""
    alike = [len(row.abs().unique()) < len(row) for row in standardise(p.weight, p.gram).weight]
    G = standardise(p.weight, p.gram).gram
    twins = (G.fill_diagonal_(0).abs() > 1 - 1e-4).any()
    return torch.tensor(alike) | twins


@pytest.mark.parametrize("pattern", [PATTERNS[2], PATTERNS[5]], ids=lambda pattern: pattern.label)
def test_both_backends_make_the_same_swaps_on_a_larger_layer(pattern):
    p = problem(1, pattern, rows=6, inputs=60, tokens=300)
    (_, _, found), (_, _, expected) = (optimum(backend, p) for backend in BACKENDS)
    torch.testing.assert_close(found["mask"], expected["mask"])
    torch.testing.assert_close(found["x"], expected["x"])
    torch.testing.assert_close(found["swaps"], expected["swaps"])
    assert found["swaps"].sum() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_swap_that_pays_only_at_the_restored_weight_s_best_value_is_made(backend):
    """Input 1 is twice input 0 in all but noise: w_1 = 0 restored at 0 gains nothing, restored at w_0 / 2 it does."""
    features = torch.tensor([[1.0, 2.0], [0.3, 0.0]])
    p = Problem(torch.tensor([[1.0, 0.0]]), features.T @ features, torch.tensor([[False, True]]), PerRow(sparsity=0.5))
    _, _, result = optimum(backend, p)
    assert result["mask"].tolist() == [[True, False]]
    assert result["loss_after"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_kept_weights_descend_between_sweeps(backend):
    p = problem(2, PATTERNS[1], rows=8, inputs=24, tokens=100)
    W, _, result = optimum(backend, p)
    swapped_rows = result["swaps"] > 0
    kept_throughout = (result["mask"] & p.mask)[swapped_rows]
    updated = (result["x"] - torch.from_numpy(W))[swapped_rows][kept_throughout]
    assert swapped_rows.any()
    assert (updated.abs() > 1e-6).float().mean() > 0.9


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (1, 2), (33, 5), (70, 44), (3, 203)])
def test_awkward_sizes_agree_whatever_the_threads_and_chunks(degenerate, rows, inputs, monkeypatch):
    p = problem(5, PATTERNS[2], rows, inputs, tokens=2 * inputs, degenerate=degenerate)
    one, three = (optimum(cpu, p, threads=threads)[2] for threads in (1, 3))
    monkeypatch.setattr(compiled, "_CHUNK_ROWS", 2)
    chunked = optimum(cpu, p)[2]
    for name, value in one.items():
        torch.testing.assert_close(value, three[name], rtol=0, atol=0)
        torch.testing.assert_close(value, chunked[name], rtol=0, atol=0)
    assert one["x"].isfinite().all()
    assert one["optimal"].all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_goes_on_from_the_weights_that_it_is_given(backend):
    p = problem(6, PATTERNS[1], rows=4, inputs=16, tokens=60)
    _, _, once = optimum(backend, p)
    _, _, twice = optimum(backend, Problem(p.weight, p.gram, once["mask"], p.pattern), start=once["x"])
    torch.testing.assert_close(twice["x"], once["x"], rtol=0, atol=0)
    assert twice["swaps"].sum() == 0
