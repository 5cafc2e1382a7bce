"""Block moves: the backends against brute force, against each other, and against swaps."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, problem, problems

from prunelib import NOfM
from prunelib.kernels.block_moves import cpu, reference
from prunelib.kernels.interface import OF_ROWS
from prunelib.kernels.results import collect_rows
from prunelib.kernels.scaling import equilibrate
from prunelib.kernels.swaps import cpu as swaps
from prunelib.masks.patterns import Groups

BACKENDS = [cpu, reference]
N_OF_M = [pattern for pattern in PATTERNS if isinstance(pattern, NOfM)]


def moved(backend, p, threads=1):
    scaled, groups = equilibrate(p.weight, p.gram), p.pattern.groups(*p.mask.shape)
    return collect_rows(backend.move_to_optimum(scaled.weight, scaled.gram, p.mask, groups, threads), p.mask)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_places_may_turn_over_where_no_swap_helps(backend):
    """One feature: the pruned 5 and -4 leave 1; every swap leaves 1 or more, both at once leave 7 - 7 = 0."""
    weight, gram, mask = (
        torch.tensor([[5.0, -4.0, 7.0, -7.0]]),
        torch.ones(4, 4),
        torch.tensor([[False] * 2 + [True] * 2]),
    )
    swapped = collect_rows(swaps.swap_to_optimum(weight, gram, mask, 4, 1), mask)
    result = collect_rows(backend.move_to_optimum(weight, gram, mask, Groups(size=4, keep=2), 1), mask)
    assert swapped.loss_after.tolist() == [1.0]
    assert result.loss_after.tolist() == [0.0]
    assert result.mask.tolist() == [[True, True, False, False]]
    assert (result.swaps.tolist(), result.optimal.tolist()) == ([1], [True])


def test_the_change_by_every_pattern_is_the_difference_of_losses():
    p = problem(0, NOfM(keep=2, group=4), rows=3, inputs=12, tokens=40)
    w, G, groups = p.weight.double(), p.gram.double(), Groups(size=4, keep=2)
    changes, _ = reference.pattern_changes(w, G, p.mask, slice(4, 8), reference._patterns(groups))
    for r, m in enumerate(p.mask.numpy()):
        losses = [oracles.loss(w[r].numpy(), G.numpy(), after) for after in oracles.block_masks(m, 4, groups)]
        np.testing.assert_allclose(changes[r], np.array(losses) - oracles.loss(w[r].numpy(), G.numpy(), m), rtol=1e-9)


@settings(max_examples=100)
@given(problems(patterns=N_OF_M))
def test_both_backends_end_in_a_block_optimum_by_brute_force(p):
    scaled, groups = equilibrate(p.weight, p.gram), p.pattern.groups(*p.mask.shape)
    for backend in BACKENDS:
        result = moved(backend, p)
        assert result.optimal.all()
        assert (result.loss_after <= result.loss_before).all()
        assert (result.mask.view(-1, groups.size).sum(dim=1) == groups.keep).all()
        for w, m in zip(scaled.weight.numpy(), result.mask.numpy(), strict=True):
            assert oracles.is_block_optimal(w, scaled.gram.numpy(), m, groups)


@settings(max_examples=150)
@given(problems(max_inputs=32, patterns=N_OF_M))
def test_a_block_optimum_leaves_no_swap(p):
    scaled, mask = equilibrate(p.weight, p.gram), moved(cpu, p).mask
    assert collect_rows(swaps.swap_to_optimum(scaled.weight, scaled.gram, mask, p.group, 1), mask).swaps.sum() == 0


@pytest.mark.parametrize("pattern", [*N_OF_M, NOfM(keep=1, group=2), NOfM(keep=2, group=6), NOfM(keep=5, group=10)])
def test_compiled_and_plain_backend_make_the_same_moves(pattern):
    p = problem(1, pattern, rows=9, inputs=4 * pattern.group, tokens=200)
    compiled, plain = moved(cpu, p), moved(reference, p)
    for name in ("mask", "swaps", "loss_before", "loss_after", "optimal"):
        torch.testing.assert_close(getattr(compiled, name), getattr(plain, name))
    assert compiled.swaps.sum() > 0


def test_the_plain_backend_takes_rows_in_chunks(monkeypatch):
    p = problem(2, NOfM(keep=2, group=4), rows=9, inputs=16, tokens=50)
    whole = moved(reference, p)
    monkeypatch.setattr(reference, "_CHUNK_BYTES", 2 * 8 * 6 * 4**2)
    torch.testing.assert_close(moved(reference, p).mask, whole.mask)


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_the_number_of_threads_changes_nothing(degenerate):
    p = problem(3, NOfM(keep=4, group=8), rows=70, inputs=40, tokens=80, degenerate=degenerate)
    one, three = moved(cpu, p, threads=1), moved(cpu, p, threads=3)
    for name in OF_ROWS:
        torch.testing.assert_close(getattr(one, name), getattr(three, name), rtol=0, atol=0)


def test_losses_are_those_of_the_masks():
    p = problem(4, NOfM(keep=4, group=8), rows=6, inputs=64, tokens=300)
    scaled, result = equilibrate(p.weight, p.gram), moved(cpu, p)
    for mask, found in ((p.mask, result.loss_before), (result.mask, result.loss_after)):
        losses = oracles.losses(scaled.weight.numpy(), scaled.gram.numpy(), mask.numpy())
        np.testing.assert_allclose(found, losses, rtol=1e-10)
