"""Partial refit swaps of the CUDA backend: on a GPU, else in Triton's interpreter, small and slow."""

import oracles
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, PER_LAYER, Problem, problem, problems
from swap_backends import all_or_none, check_all_or_none
from triton_device import DEVICE

from prunelib import NOfM, PerRow
from prunelib.kernels.interface import OF_ROWS
from prunelib.kernels.partial_refit_swaps import reference
from prunelib.kernels.refit_swaps.reference import IMPROVEMENT
from prunelib.refiners import refit_swaps
from prunelib.refiners.refit_swaps import standardise

pytest.importorskip("triton", reason="triton is not installed")

from prunelib.kernels import backend
from prunelib.kernels import cuda_chunks as chunks
from prunelib.kernels.partial_refit_swaps import cuda
from prunelib.runtime.compute import AUTO

pytestmark = pytest.mark.triton

EXAMPLES = 40 if DEVICE == "cuda" else 12
ROW60, NM24, NM48 = PATTERNS[2], NOfM(keep=2, group=4), NOfM(keep=4, group=8)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Blocks that the small problems here do not fill, and more than one of them."""
    monkeypatch.setattr(cuda, "TILE", {"ROWS": 4, "KEPT": 8, "PRUNED": 8, "num_warps": 1})
    monkeypatch.setattr(cuda, "DESCENT", {"ROWS": 2, "COORDINATES": 8, "num_warps": 1})


def optimum(p, start=None, of=cuda):
    """All rows of a backend's results, in order, and the layer as it got it."""
    layer = standardise(p.weight, p.gram)
    start = layer.weight * p.mask if start is None else start
    operands = (operand.to(DEVICE) for operand in (layer.weight, layer.gram, p.mask, start))
    ordered = sorted(of.swap_to_optimum(*operands, p.group, 1), key=lambda part: part[0].start)
    joined = {name: torch.cat([getattr(results, name) for _, results, _ in ordered]) for name in OF_ROWS}
    x = torch.cat([x for _, _, x in ordered]).cpu()
    return layer.weight.numpy(), layer.gram.double().numpy(), {**joined, "x": x}


def assert_optimal(p, W, G, result):
    """No partial swap improves a row, losses are those of the weights and do not rise, counts are kept."""
    assert result["optimal"].all()
    assert (result["loss_after"] <= result["loss_before"] * (1 + 1e-9) + 1e-12).all()
    shape = (len(p.mask), -1, p.group)
    torch.testing.assert_close(result["mask"].view(shape).sum(-1), p.mask.view(shape).sum(-1))
    assert (result["x"][~result["mask"]] == 0).all()
    for w, m, x, loss in zip(W, result["mask"].numpy(), result["x"].numpy(), result["loss_after"], strict=True):
        scale = float(w @ w)
        assert loss.item() == pytest.approx(oracles.updated_loss(w, G, x), rel=1e-6, abs=1e-9 * scale)
        assert oracles.least_refit_change(w, G, x, m, p.group) >= -10 * IMPROVEMENT * scale


def assert_same(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)


@settings(max_examples=EXAMPLES)
@given(problems(max_inputs=10))
def test_rows_end_where_no_partial_swap_improves(p):
    assert_optimal(p, *optimum(p))


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize("pattern", [ROW60, NM24], ids=lambda pattern: pattern.label)
def test_degenerate_layers(degenerate, pattern):
    p = problem(7, pattern, rows=3, inputs=12, tokens=30, degenerate=degenerate)
    assert_optimal(p, *optimum(p))


@pytest.mark.parametrize("pattern", [ROW60, NM24, NM48, NOfM(keep=1, group=3)], ids=lambda pattern: pattern.label)
def test_the_same_swaps_as_the_plain_backend(pattern):
    p = problem(1, pattern, rows=3, inputs=24, tokens=120)
    found, expected = (optimum(p, of=each)[2] for each in (cuda, reference))
    assert_same(found, expected)
    assert found["swaps"].sum() > 0


@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (1, 2), (2, 5), (5, 17), (3, 40)])
def test_sizes_that_no_block_divides(rows, inputs):
    p = problem(3, PATTERNS[1], rows, inputs, tokens=3 * inputs)
    assert_same(optimum(p)[2], optimum(p, of=reference)[2])


@pytest.mark.parametrize("kept", [1, 10])
def test_one_kept_and_one_pruned(kept):
    p = problem(5, PerRow(sparsity=1 - kept / 11), rows=2, inputs=11, tokens=40)
    assert p.mask.sum(dim=1).tolist() == [kept, kept]
    assert_optimal(p, *optimum(p))


def test_rows_that_keep_all_or_none_stay_as_they_are():
    p = all_or_none()
    _, _, result = optimum(p)
    check_all_or_none(p, result)
    assert result["optimal"].all()


@settings(max_examples=EXAMPLES // 2)
@given(problems(max_inputs=9, patterns=PER_LAYER))
def test_rows_that_keep_any_number_end_there_too(p):
    W, G, result = optimum(p)
    torch.testing.assert_close(result["mask"].sum(dim=1), p.mask.sum(dim=1))
    for w, m, x in zip(W, result["mask"].numpy(), result["x"].numpy(), strict=True):
        assert oracles.least_refit_change(w, G, x, m, p.group) >= -10 * IMPROVEMENT * float(w @ w)


def test_a_swap_that_pays_only_at_the_restored_weight_s_best_value_is_made():
    """Input 1 is twice input 0 in all but noise: w_1 = 0 restored at 0 gains nothing, restored at w_0 / 2 it does."""
    features = torch.tensor([[1.0, 2.0], [0.3, 0.0]])
    p = Problem(torch.tensor([[1.0, 0.0]]), features.T @ features, torch.tensor([[False, True]]), PerRow(sparsity=0.5))
    _, _, result = optimum(p)
    assert result["mask"].tolist() == [[True, False]]
    assert result["loss_after"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("pattern", [ROW60, NM24], ids=lambda pattern: pattern.label)
def test_how_the_work_is_cut_changes_nothing(monkeypatch, pattern):
    p = problem(4, pattern, rows=3, inputs=20, tokens=60)
    whole = optimum(p)[2]
    monkeypatch.setattr(cuda, "TILE", {"ROWS": 1, "KEPT": 32, "PRUNED": 2, "num_warps": 2})
    monkeypatch.setattr(cuda, "DESCENT", {"ROWS": 1, "COORDINATES": 32, "num_warps": 2})
    monkeypatch.setattr(cuda, "_GROUPS_TILE", {"KEPT": 8, "num_warps": 1})
    monkeypatch.setattr(chunks, "_TILE_COLUMNS_PER_WARP", 8)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 2)
    monkeypatch.setattr(chunks, "STRIP_ROWS", 7)
    assert_same(optimum(p)[2], whole)


def test_it_goes_on_from_the_weights_that_it_is_given():
    p = problem(6, PATTERNS[1], rows=4, inputs=16, tokens=60)
    _, _, once = optimum(p)
    _, _, twice = optimum(Problem(p.weight, p.gram, once["mask"], p.pattern), start=once["x"])
    torch.testing.assert_close(twice["x"], once["x"], rtol=0, atol=0)
    assert twice["swaps"].sum() == 0


def test_the_refiner_takes_what_it_gives(monkeypatch):
    p = problem(8, PATTERNS[1], rows=3, inputs=20, tokens=80)
    operands = [operand.to(DEVICE) for operand in (p.weight, p.gram, p.mask)]
    results = []
    for each in (cuda, reference):
        monkeypatch.setattr(refit_swaps, "backend", lambda *_, each=each: each)
        results.append(refit_swaps.refit_swaps(*operands, p.pattern))
    found, expected = results
    torch.testing.assert_close(found.mask, expected.mask)
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-3, atol=1e-3)


def test_tensors_on_a_gpu_get_this_backend():
    assert backend(torch.device("cuda"), "partial_refit_swaps", AUTO) is cuda
