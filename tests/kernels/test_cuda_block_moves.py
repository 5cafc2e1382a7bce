"""Block moves of the CUDA backend: on a GPU, else in Triton's interpreter, small and slow."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, problem, problems
from triton_device import DEVICE

from prunelib import NOfM
from prunelib.kernels.block_moves import reference
from prunelib.kernels.results import collect_rows
from prunelib.kernels.scaling import equilibrate
from prunelib.masks.patterns import Groups

pytest.importorskip("triton", reason="triton is not installed")

from prunelib.kernels import backend
from prunelib.kernels import cuda_chunks as chunks
from prunelib.kernels.block_moves import cuda
from prunelib.runtime.compute import AUTO

pytestmark = pytest.mark.triton

EXAMPLES = 40 if DEVICE == "cuda" else 10
FIGURES = ("mask", "swaps", "loss_before", "loss_after", "optimal")
N_OF_M = [pattern for pattern in PATTERNS if isinstance(pattern, NOfM)]


@pytest.fixture(autouse=True)
def _short_tiles(monkeypatch):
    """Tiles of c that are shorter than the rows here, and do not divide them."""
    monkeypatch.setattr(cuda, "_TILE", {"TILE": 16, "num_warps": 1})


def operands(p):
    scaled = equilibrate(p.weight, p.gram)
    return scaled.weight.to(DEVICE), scaled.gram.to(DEVICE), p.mask.to(DEVICE)


def moved(p, of=cuda):
    return collect_rows(of.move_to_optimum(*operands(p), p.pattern.groups(*p.mask.shape), 1), p.mask)


def assert_optimal(p, result):
    """No pattern of any one group improves a row, losses are those of the masks and do not rise, counts are kept."""
    weight, gram = (operand.cpu().double().numpy() for operand in operands(p)[:2])
    groups = p.pattern.groups(*p.mask.shape)
    before, after = (oracles.losses(weight, gram, m.numpy()).clip(min=0) for m in (p.mask, result.mask))
    assert result.optimal.all()
    assert (np.abs(result.loss_before.numpy() - before) <= 1e-9 * (1 + before)).all()
    assert (np.abs(result.loss_after.numpy() - after) <= 1e-9 * (1 + before)).all()
    assert (result.loss_after <= result.loss_before).all()
    assert (result.mask.unflatten(1, (-1, groups.size)).sum(dim=2) == groups.keep).all()
    for w, m in zip(weight, result.mask.numpy(), strict=True):
        assert oracles.is_block_optimal(w, gram, m, groups)


def test_two_places_may_turn_over_where_no_swap_helps():
    """One feature: the pruned 5 and -4 leave 1; every swap leaves 1 or more, both at once leave 7 - 7 = 0."""
    weight, gram = torch.tensor([[5.0, -4.0, 7.0, -7.0]], device=DEVICE), torch.ones(4, 4, device=DEVICE)
    mask = torch.tensor([[False, False, True, True]], device=DEVICE)
    result = collect_rows(cuda.move_to_optimum(weight, gram, mask, Groups(size=4, keep=2), 1), mask)
    assert (result.loss_before.tolist(), result.loss_after.tolist()) == ([1.0], [0.0])
    assert result.mask.tolist() == [[True, True, False, False]]
    assert (result.swaps.tolist(), result.sweeps.tolist(), result.optimal.tolist()) == ([1], [3], [True])


@settings(max_examples=EXAMPLES)
@given(problems(max_inputs=16, patterns=N_OF_M))
def test_rows_end_in_a_block_optimum_by_brute_force(p):
    assert_optimal(p, moved(p))


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize("pattern", [NOfM(keep=2, group=4), NOfM(keep=4, group=8)], ids=lambda pattern: pattern.label)
def test_degenerate_layers(degenerate, pattern):
    p = problem(7, pattern, rows=3, inputs=16, tokens=30, degenerate=degenerate)
    assert_optimal(p, moved(p))


@pytest.mark.parametrize(
    "pattern", [*N_OF_M, NOfM(keep=1, group=2), NOfM(keep=2, group=6), NOfM(keep=1, group=33)], ids=lambda p: p.label
)
def test_the_same_moves_as_the_plain_backend(pattern):
    p = problem(1, pattern, rows=3, inputs=(4 if pattern.group < 9 else 2) * pattern.group, tokens=200)
    found, expected = moved(p), moved(p, of=reference)
    for name in FIGURES:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    assert found.swaps.sum() > 0


def test_groups_of_many_patterns(monkeypatch):
    monkeypatch.setattr(cuda, "_AT_ONCE", 8192)  # of 12,869 moves
    p = problem(2, NOfM(keep=8, group=16), rows=1, inputs=16, tokens=60)
    assert_optimal(p, moved(p))


@pytest.mark.parametrize("inputs", [4, 12, 28])
def test_one_row_of_any_length(inputs):
    p = problem(3, NOfM(keep=2, group=4), rows=1, inputs=inputs, tokens=3 * inputs)
    assert_optimal(p, moved(p))


@pytest.mark.parametrize(("pattern", "at_once"), [(NOfM(keep=2, group=4), 8), (NOfM(keep=4, group=8), 64)])
def test_how_the_work_is_cut_changes_nothing(monkeypatch, pattern, at_once):
    p = problem(4, pattern, rows=3, inputs=24, tokens=80)
    whole = moved(p)
    monkeypatch.setattr(cuda, "_AT_ONCE", at_once)
    monkeypatch.setattr(cuda, "_TILE", {"TILE": 32, "num_warps": 2})
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 2)
    monkeypatch.setattr(chunks, "STRIP_ROWS", 7)
    cut = moved(p)
    for name in (*FIGURES, "sweeps"):
        torch.testing.assert_close(getattr(whole, name), getattr(cut, name))


def test_tensors_on_a_gpu_get_this_backend():
    assert backend(torch.device("cuda"), "block_moves", AUTO) is cuda
