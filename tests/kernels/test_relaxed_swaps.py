"""The backends of relaxed swaps against optimality conditions, and against each other."""

import importlib
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, problem, problems
from triton_device import CUDA, DEVICE

from prunelib.kernels import cpu_common as compiled
from prunelib.kernels.relaxed_swaps import cpu, reference
from prunelib.kernels.scaling import equilibrate

COMPILED = ["cpu", CUDA]


@pytest.fixture(scope="module", params=[*COMPILED, "reference"])
def backend(request):
    if request.param == "cuda":
        pytest.importorskip("triton", reason="triton is not installed")
    return importlib.import_module(f"prunelib.kernels.relaxed_swaps.{request.param}")


class Effort(NamedTuple):
    """How many examples; to which gap, as a share of the loss and beside it of the scale; in how many rounds."""

    examples: int
    tolerance: float
    slack: float
    rounds: int


def interpreted(backend):
    """Whether Triton's interpreter runs it: a round of a row then takes as long as a whole layer elsewhere."""
    return "cuda" in backend.__name__ and DEVICE == "cpu"


def effort(backend):
    if interpreted(backend):
        return Effort(3, 1e-2, 1e-3, 100)
    return Effort(15 if backend is reference else 60, 1e-4, 1e-5, 3000)


def layer(p):
    """Weights and Gram matrix as backends get them."""
    scaled = equilibrate(p.weight, p.gram)
    return scaled.weight, scaled.gram


def descend(backend, p, shifts=None, mass=None, fixed=None, price=None, tolerance=1e-4, rounds=3000, threads=1):
    """All rows of a backend's results, in order."""
    weight, gram = layer(p)
    shifts = torch.zeros(1, len(gram), dtype=torch.float64) if shifts is None else shifts
    mass = p.mask.double() if mass is None else mass
    fixed = torch.zeros_like(p.mask) if fixed is None else fixed
    device = DEVICE if "cuda" in backend.__name__ else "cpu"
    operands = reference.Operands(
        weight=weight.to(device),
        gram=gram.to(device),
        shifts=shifts.to(device),
        mass=mass.to(device),
        fixed=fixed.to(device),
    )
    parts = backend.descend(operands, p.group, price, tolerance, rounds, threads)
    return torch.cat([part.cpu() for _, part in sorted(parts, key=lambda part: part[0].start)])


def evaluated(p, mass, shift=0.0):
    """The relaxed losses (rows,) and their gradient (rows, inputs), from the definition."""
    weight, gram = (value.double().numpy() for value in layer(p))
    m, d = mass.numpy(), np.broadcast_to(shift, len(gram))
    pruned = (1 - m) * weight
    losses = ((pruned @ (gram - np.diag(d))) * pruned).sum(axis=1) + (d * weight**2 * (1 - m)).sum(axis=1)
    return losses, -2 * weight * (pruned @ (gram - np.diag(d))) - d * weight**2


def gap(p, mass, fixed=None):
    """<gradient, m - v> with the best v that has the same mass in each group and agrees on what is fixed."""
    _, gradient = evaluated(p, mass)
    gaps = np.zeros(len(mass))
    free = np.ones(mass.shape, bool) if fixed is None else ~fixed.numpy()
    for r in range(len(mass)):
        for low in range(0, mass.shape[1], p.group):
            places = [j for j in range(low, low + p.group) if free[r, j]]
            budget = mass[r, places].sum().item()
            gaps[r] += (gradient[r, places] * mass[r, places].numpy()).sum()
            for g in sorted(gradient[r, places]):
                gaps[r] -= g * min(max(budget, 0), 1)
                budget -= 1
    return gaps


def scale(p):
    """The losses that cancellation could hide, (rows,)."""
    weight, gram = (value.double().numpy() for value in layer(p))
    return ((np.abs(weight) @ np.abs(gram)) * np.abs(weight)).sum(axis=1)


def test_one_pair_moves_to_the_minimum_along_its_edge(backend):
    """f = 4 (1 - m_0)^2 + (1 - m_1)^2 along m_0 + m_1 = 1: the minimum is at m_0 = 4/5."""
    p = problem(0, PATTERNS[1], rows=1, inputs=2, tokens=20)
    p = type(p)(torch.tensor([[2.0, 1.0]]), torch.eye(2), torch.tensor([[False, True]]), p.pattern)
    assert descend(backend, p, rounds=1)[0].tolist() == pytest.approx([0.8, 0.2])
    p = type(p)(torch.tensor([[2.0, 1.0]]), torch.ones(2, 2), torch.tensor([[False, True]]), p.pattern)
    assert descend(backend, p, rounds=1)[0].tolist() == pytest.approx([1.0, 0.0])


def test_masses_stay_feasible_losses_fall_and_the_gap_closes(backend):
    examples, tolerance, slack, rounds = effort(backend)

    @settings(max_examples=examples)
    @given(problems(max_inputs=12))
    def of_any_layer(p):
        mass = descend(backend, p, tolerance=tolerance, rounds=rounds)
        assert ((mass >= 0) & (mass <= 1)).all()
        shape = (len(mass), -1, p.group)
        torch.testing.assert_close(mass.reshape(shape).sum(2), p.mask.double().reshape(shape).sum(2))
        before, after = (evaluated(p, m)[0] for m in (p.mask.double(), mass))
        assert (after <= before + 1e-9 * scale(p)).all()
        assert (gap(p, mass) <= 2 * tolerance * after + slack * scale(p)).all()

    of_any_layer()


@pytest.mark.parametrize("backend", COMPILED, indirect=True)
def test_the_backends_reach_the_same_optimum(backend):
    """Follows from their gaps, so few examples do; the reference takes seconds for one."""
    examples, tolerance, slack, rounds = effort(backend)

    @settings(max_examples=min(examples, 8))
    @given(problems(max_inputs=12))
    def of_any_layer(p):
        masses = (descend(each, p, tolerance=tolerance, rounds=rounds) for each in (backend, reference))
        found, expected = (evaluated(p, mass)[0] for mass in masses)
        assert (np.abs(found - expected) <= 3 * tolerance * expected + slack * scale(p)).all()

    of_any_layer()


@pytest.mark.parametrize("backend", COMPILED, indirect=True)
@pytest.mark.parametrize("pattern", [PATTERNS[2], PATTERNS[5]], ids=lambda pattern: pattern.label)
def test_the_backends_take_the_same_first_pair(backend, pattern):
    """Of 12 inputs a round makes one pair; its line search then leaves two gradients equal, and rounding the choice."""
    p = problem(1, pattern, rows=50, inputs=12, tokens=60)
    found, expected = (descend(each, p, rounds=1, tolerance=0) for each in (backend, reference))
    moved = (found - p.mask.double()).abs() > 0
    assert (moved.sum(dim=1) == 2).any()
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("pattern", [PATTERNS[1], PATTERNS[6]], ids=lambda pattern: pattern.label)
def test_what_is_fixed_does_not_move_and_the_rest_is_optimal(backend, pattern):
    p, tolerance = problem(2, pattern, rows=4, inputs=24, tokens=100), effort(backend).tolerance
    fixed = p.mask & (torch.rand(4, 24, generator=torch.Generator().manual_seed(2)) < 0.5)
    mass = descend(backend, p, fixed=fixed, tolerance=tolerance)
    assert (mass[fixed] == 1).all()
    assert (gap(p, mass, fixed) <= 2 * tolerance * evaluated(p, mass)[0]).all()


@pytest.mark.parametrize("price", [1e-6, 0.05, 0.3, 1e3])
def test_at_a_price_rows_buy_what_is_worth_it(backend, price):
    rows, inputs = (2, 12) if interpreted(backend) else (4, 20)
    p, tolerance = problem(3, PATTERNS[1], rows, inputs, tokens=100), effort(backend).tolerance
    mass = descend(backend, p, price=price, tolerance=tolerance)
    losses, gradient = evaluated(p, mass)
    worth = gradient + price
    box_gap = (worth * mass.numpy() - np.minimum(worth, 0)).sum(axis=1)
    assert (box_gap <= 2 * tolerance * losses + 1e-9).all()
    assert (price < 1e3) or mass.max() == 0


def test_along_growing_shifts_masses_end_at_vertices(backend):
    rows, inputs = (2, 16) if interpreted(backend) else (6, 24)
    p = problem(4, PATTERNS[1], rows, inputs, tokens=100)
    gram = layer(p)[1]
    shifts = torch.linspace(0, 1.5, 13, dtype=torch.float64)[:, None] * gram.diagonal()
    mass = descend(backend, p, shifts=shifts, tolerance=1e-6, rounds=50)
    assert (torch.minimum(mass, 1 - mass) < 1e-6).all()
    losses, relaxed = evaluated(p, mass)[0], evaluated(p, mass, shifts[-1].numpy())[0]
    np.testing.assert_allclose(losses, relaxed, rtol=1e-4)


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (1, 2), (33, 5), (70, 44), (3, 203)])
def test_awkward_sizes_agree_whatever_the_threads_and_chunks(degenerate, rows, inputs, monkeypatch):
    p = problem(5, PATTERNS[2], rows, inputs, tokens=2 * inputs, degenerate=degenerate)
    one, three = descend(cpu, p, threads=1), descend(cpu, p, threads=3)
    torch.testing.assert_close(one, three, rtol=0, atol=0)
    monkeypatch.setattr(compiled, "_CHUNK_ROWS", 2)
    torch.testing.assert_close(one, descend(cpu, p), rtol=0, atol=0)
    assert (gap(p, one) <= 2e-4 * evaluated(p, one)[0] + 1e-6 * scale(p)).all()
