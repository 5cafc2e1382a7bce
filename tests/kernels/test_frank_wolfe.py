"""The backends of Frank-Wolfe steps against the definitions, in float64."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems
from triton_device import CUDA, DEVICE

from prunelib import NOfM, PerRow
from prunelib.kernels.scaling import equilibrate

BACKENDS = ["reference", "cpu", CUDA]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    if request.param == "cuda":
        pytest.importorskip("triton", reason="triton is not installed")
    return importlib.import_module(f"prunelib.kernels.frank_wolfe.{request.param}")


def operands(p, seed=0):
    """weight, linear, residual, mass and fixed of a layer at random masses; some are 0, some 1, a few fixed."""
    draw = torch.Generator().manual_seed(seed)
    scaled = equilibrate(p.weight, p.gram)
    w, shift = scaled.weight, torch.rand(p.gram.shape[1], generator=draw) * scaled.gram.diagonal()
    mass = torch.rand(w.shape, generator=draw).where(torch.rand(w.shape, generator=draw) < 0.5, p.mask.float())
    fixed = p.mask & (torch.rand(w.shape, generator=draw) < 0.3)
    mass[fixed] = 1
    residual = ((1 - mass) * w) @ scaled.gram
    return w, shift * w**2, residual, mass, fixed


def on(backend, tensors):
    """Tensors where a backend works."""
    return [tensor.to(DEVICE if "cuda" in backend.__name__ else "cpu") for tensor in tensors]


def direct(backend, given, pattern):
    """The direction, on the CPU."""
    size, keep = pattern.groups(*given[0].shape)
    return [part.cpu() for part in backend.direction(*on(backend, given), size, keep, 1)]


def check(backend, p, seed=0):
    given = operands(p, seed)
    toward, pruned, slope = direct(backend, given, p.pattern)
    w, linear, residual, mass, fixed = (tensor.double().numpy() for tensor in given)
    gradient = linear * (1 - 2 * mass) - 2 * w * residual
    vertex = np.round(toward.double().numpy() + mass)
    np.testing.assert_allclose(toward.numpy(), vertex - mass, atol=1e-6)
    torch.testing.assert_close(pruned, toward * given[0])
    size, keep = p.pattern.groups(*mass.shape)
    slack = 1e-5 * (np.abs(linear) + 2 * np.abs(w * residual)).reshape(-1, size).sum(axis=1)
    g, v, locked = (array.reshape(-1, size) for array in (gradient, vertex, fixed > 0))
    assert (v[locked] == 1).all()
    assert np.isin(v, (0, 1)).all()
    assert (v.sum(axis=1) <= keep).all()
    for g_q, v_q, locked_q, slack_q in zip(g, v, locked, slack, strict=True):
        free = np.sort(g_q[~locked_q])[: keep - locked_q.sum()]
        assert (g_q * v_q)[~locked_q].sum() <= np.minimum(free, 0).sum() + slack_q
    expected = -(gradient * (vertex - mass)).sum(axis=1)
    scale = (np.abs(linear) + 2 * np.abs(w * residual)).sum(axis=1)
    assert (np.abs(slope.numpy() - expected) <= 1e-5 * scale).all()


def test_directions_lead_to_the_best_vertex(backend):
    @settings(max_examples=15 if "cuda" in backend.__name__ else 80)
    @given(problems(patterns=PATTERNS + PER_LAYER))
    def of_any_layer(p):
        check(backend, p)

    of_any_layer()


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize("pattern", [PerRow(sparsity=0.6), NOfM(keep=2, group=4)], ids=lambda pattern: pattern.label)
def test_degenerate_layers(backend, pattern, degenerate):
    check(backend, problem(1, pattern, rows=3, inputs=44, tokens=60, degenerate=degenerate))


def test_everything_may_be_fixed(backend):
    p = problem(2, PerRow(sparsity=0.5), rows=2, inputs=20, tokens=40)
    w, linear, residual, _, _ = operands(p)
    toward, _, _ = direct(backend, (w, linear, residual, p.mask.float(), p.mask), p.pattern)
    assert (toward == 0).all()


def test_of_equal_gradients_no_more_than_the_budget_is_taken(backend):
    ones = torch.ones(3, 33)
    p = problem(0, PerRow(sparsity=0.6), rows=3, inputs=33, tokens=40)
    toward, _, _ = direct(backend, (ones, 0 * ones, ones, 0 * ones, torch.zeros(3, 33, dtype=torch.bool)), p.pattern)
    assert toward.sum(dim=1).tolist() == [p.pattern.groups(3, 33).keep] * 3


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_curvature_is_that_of_the_definition(backend, degenerate):
    p = problem(3, PerRow(sparsity=0.6), rows=3, inputs=37, tokens=60, degenerate=degenerate)
    w, linear, residual, mass, fixed = operands(p)
    toward, pruned, _ = direct(backend, (w, linear, residual, mass, fixed), p.pattern)
    change = pruned @ equilibrate(p.weight, p.gram).gram
    found = backend.curvature(*on(backend, (w, linear, toward, change)), 1).cpu()
    d, wide = toward.double(), [tensor.double() for tensor in (w, linear, change)]
    expected = (d * (wide[0] * wide[2] - wide[1] * d)).sum(dim=1)
    scale = (d.abs() * ((wide[0] * wide[2]).abs() + (wide[1] * d).abs())).sum(dim=1)
    assert ((found - expected).abs() <= 1e-6 * scale + 1e-300).all()


@pytest.mark.parametrize("pattern", [PerRow(sparsity=0.6), NOfM(keep=2, group=4)], ids=lambda pattern: pattern.label)
def test_threads_which_decide_the_chunks_change_no_bit(pattern):
    backend = importlib.import_module("prunelib.kernels.frank_wolfe.cpu")
    given = operands(problem(4, pattern, rows=70, inputs=44, tokens=60))
    size, keep = pattern.groups(70, 44)
    one, *others = (backend.direction(*given, size, keep, threads) for threads in (1, 2, 3, 10, 100))
    for found in others:
        assert all(torch.equal(*pair) for pair in zip(one, found, strict=True))
