"""The CUDA backend against brute force and the reference: on a GPU, else in Triton's interpreter, small and slow."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems
from swap_backends import all_or_none, cancelling, check_all_or_none, check_equal_swaps, check_the_pair_term, finished
from triton_device import DEVICE

from prunelib import NOfM, PerRow
from prunelib.kernels.scaling import equilibrate
from prunelib.kernels.swaps import reference

pytest.importorskip("triton", reason="triton is not installed")

from prunelib.kernels import backend
from prunelib.kernels import cuda_chunks as chunks
from prunelib.kernels.swaps import cuda, cuda_sweeps
from prunelib.runtime.compute import AUTO

pytestmark = pytest.mark.triton

EXAMPLES = 40 if DEVICE == "cuda" else 12
ROW60, NM24, NM48 = PATTERNS[2], NOfM(keep=2, group=4), NOfM(keep=4, group=8)


@pytest.fixture(autouse=True, scope="module")
def _small_tiles():
    """Blocks that the small problems here do not fill, and more than one of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "TILE", {"ROWS": 4, "KEPT": 8, "PRUNED": 8, "num_warps": 1})
        patch.setattr(cuda, "_SCAN", {"STRIP": 2, "COLUMNS": 8, "num_warps": 1})
        patch.setattr(cuda, "SEGMENT", 4)
        yield


def operands(p):
    scaled = equilibrate(p.weight, p.gram)
    return scaled.weight.to(DEVICE), scaled.gram.to(DEVICE), p.mask.to(DEVICE), p.group


def best(p, max_swaps, of=cuda):
    return finished(of.swap_best(*operands(p), max_swaps, 1))


def optimum(p, of=cuda):
    return finished(of.swap_to_optimum(*operands(p), 1))


def assert_consistent(p, result):
    """Counts are kept, losses are those of the masks and do not rise."""
    weight, gram = (operand.cpu().double().numpy() for operand in operands(p)[:2])
    before, after = (oracles.losses(weight, gram, m.numpy()).clip(min=0) for m in (p.mask, result["mask"]))
    assert (np.abs(result["loss_before"].numpy() - before) <= 1e-9 * (1 + before)).all()
    assert (np.abs(result["loss_after"].numpy() - after) <= 1e-9 * (1 + before)).all()
    assert (result["loss_after"] <= result["loss_before"]).all()
    shape = (len(p.mask), -1, p.group)
    torch.testing.assert_close(result["mask"].view(shape).sum(-1), p.mask.view(shape).sum(-1))
    assert ((result["mask"] != p.mask).sum(dim=1) <= 2 * result["swaps"]).all()


def assert_optimal(p, result):
    assert result["optimal"].all()
    weight, gram = (operand.cpu().numpy() for operand in operands(p)[:2])
    for w, m in zip(weight, result["mask"].numpy(), strict=True):
        assert oracles.is_swap_optimal(w, gram.astype(np.float64), m, p.group)


def assert_same(p, found, expected):
    """The same swaps where float64 can tell them apart, and always as low a loss."""
    torch.testing.assert_close(found["loss_after"], expected["loss_after"], rtol=1e-8, atol=1e-9)
    for name in ("mask", "swaps", "sweeps", "optimal") if p.separable else ():
        torch.testing.assert_close(found[name], expected[name])


def test_the_pair_term_matters():
    check_the_pair_term(cuda, DEVICE)


@pytest.mark.parametrize("pattern", [ROW60, NM24, NM48], ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("max_swaps", [1, 3, 50])
def test_best_swaps_are_those_of_brute_force(pattern, max_swaps):
    p = problem(1, pattern, rows=3, inputs=16, tokens=50)
    result = best(p, max_swaps)
    for r in range(3):
        expected = oracles.best_swaps(p.weight[r].numpy(), p.gram.numpy(), p.mask[r].numpy(), p.group, max_swaps)
        np.testing.assert_array_equal(result["mask"][r].numpy(), expected)


@settings(max_examples=EXAMPLES)
@given(problems(max_inputs=12))
def test_best_swaps_are_those_of_the_plain_backend(p):
    for max_swaps in (2, 1000):
        assert_same(p, best(p, max_swaps), best(p, max_swaps, of=reference))


@settings(max_examples=EXAMPLES)
@given(problems(max_inputs=10))
def test_sweeps_end_in_a_swap_optimum_by_brute_force(p):
    result = optimum(p)
    assert_optimal(p, result)
    assert_consistent(p, result)


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize("pattern", [ROW60, NM24], ids=lambda pattern: pattern.label)
def test_degenerate_layers(degenerate, pattern):
    p = problem(7, pattern, rows=3, inputs=12, tokens=30, degenerate=degenerate)
    swept, swapped = optimum(p), best(p, 1000)
    for result in (swept, swapped):
        assert_optimal(p, result)
        assert_consistent(p, result)
    assert_same(p, swapped, best(p, 1000, of=reference))


@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (1, 2), (2, 5), (5, 17), (2, 48)])
def test_sizes_that_no_block_divides(rows, inputs):
    p = problem(3, PATTERNS[1], rows, inputs, tokens=3 * inputs)
    swept, swapped = optimum(p), best(p, 6)
    assert_optimal(p, swept)
    assert_consistent(p, swept)
    assert_same(p, swapped, best(p, 6, of=reference))


@pytest.mark.parametrize("kept", [1, 10])
def test_one_kept_and_one_pruned(kept):
    p = problem(5, PerRow(sparsity=1 - kept / 11), rows=2, inputs=11, tokens=40)
    assert p.mask.sum(dim=1).tolist() == [kept, kept]
    assert_optimal(p, optimum(p))
    assert_same(p, best(p, 1000), best(p, 1000, of=reference))


def test_rows_that_keep_all_or_none_stay_as_they_are():
    p = all_or_none()
    for result in (optimum(p), best(p, 5)):
        check_all_or_none(p, result)
        assert result["loss_after"][0] == 0


@settings(max_examples=EXAMPLES // 2)
@given(problems(max_inputs=9, patterns=PER_LAYER))
def test_rows_that_keep_any_number_end_in_a_swap_optimum_too(p):
    result = optimum(p)
    assert_optimal(p, result)
    torch.testing.assert_close(result["mask"].sum(dim=1), p.mask.sum(dim=1))


@pytest.mark.parametrize("pattern", [ROW60, NM24], ids=lambda pattern: pattern.label)
def test_how_the_work_is_cut_changes_nothing(monkeypatch, pattern):
    p = problem(4, pattern, rows=5, inputs=24, tokens=60)
    whole = optimum(p), best(p, 4)
    monkeypatch.setattr(cuda, "TILE", {"ROWS": 1, "KEPT": 32, "PRUNED": 2, "num_warps": 2})
    monkeypatch.setattr(cuda, "_SCAN", {"STRIP": 1, "COLUMNS": 32, "num_warps": 2})
    monkeypatch.setattr(cuda, "SEGMENT", 16)  # of other layers, sweeps may then end at another optimum
    monkeypatch.setattr(cuda, "_BEGIN_TILE", {"TILE": 8, "num_warps": 1})
    monkeypatch.setattr(chunks, "_TILE_COLUMNS_PER_WARP", 8)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 2)
    monkeypatch.setattr(chunks, "STRIP_ROWS", 7)
    for one, other in zip(whole, (optimum(p), best(p, 4)), strict=True):
        for name in ("mask", "swaps", "sweeps", "optimal"):
            torch.testing.assert_close(one[name], other[name])


@pytest.mark.parametrize("segment", [1, 16, 64])
def test_segments_of_any_length_give_the_best_swaps_and_an_optimum(monkeypatch, segment):
    """Which u a sweep visits depends on the segments, so that it may end at another optimum."""
    p = problem(4, ROW60, rows=5, inputs=24, tokens=60)
    expected = best(p, 4)
    monkeypatch.setattr(cuda, "SEGMENT", segment)
    found = best(p, 4)
    for name in ("mask", "swaps", "sweeps", "optimal"):
        torch.testing.assert_close(found[name], expected[name])
    assert_optimal(p, optimum(p))


class Checked:
    """A scan within bounds whose launches are followed by a check of what it found."""

    def __init__(self, kernel):
        self.kernel, self.found, self.left_out = kernel, 0, 0

    def __getitem__(self, grid):
        def launch(**operands):
            self.kernel[grid](**operands)
            state = {name: operands[name].cpu() for name in ("weight", "gram", "corr", "restore", "least")}
            for r in operands["rows"].tolist():
                self.check(state["gram"].double(), *(state[name][r].double() for name in state if name != "gram"))

        return launch

    def check(self, gram, w, c, restore, least):
        kept = restore == torch.inf
        prune, b = w * (w * gram.diag() + 2 * c), w * (w * gram.diag() - 2 * c)
        changes = prune[kept, None] + (b - 2 * w[kept, None] * w * gram[kept])[:, ~kept]  # (kept, pruned)
        exact, found = changes.amin(dim=1), (prune + least)[kept]
        rounding = 1e-5 * changes.abs().amax()
        torch.testing.assert_close(found[exact < -rounding], exact[exact < -rounding], rtol=0, atol=rounding)
        assert (found[exact >= -rounding] >= -2 * rounding).all()
        assert (least[~kept] == torch.inf).all()
        self.found += int((exact < -rounding).sum())
        self.left_out += int((found == torch.inf).sum())


@pytest.mark.parametrize("inputs", [40, 61])
def test_scans_within_bounds_find_every_swap_that_improves(monkeypatch, inputs):
    checked = Checked(cuda_sweeps.scan_again)
    monkeypatch.setattr(cuda_sweeps, "scan_again", checked)
    p = problem(8, ROW60, rows=6, inputs=inputs, tokens=3 * inputs)
    assert_optimal(p, optimum(p))
    assert checked.found > 0
    assert checked.left_out > 0


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("degenerate", ["ties", "twins"])
def test_how_float64_takes_its_candidates_changes_nothing(monkeypatch, degenerate, few):
    p = problem(9, ROW60, rows=4, inputs=24, tokens=60, degenerate=degenerate)
    expected = optimum(p)
    monkeypatch.setattr(cuda, "_VISIT", {"FEW": few})
    found = optimum(p)
    for name in ("mask", "swaps", "sweeps", "optimal", "loss_after"):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
    assert found["swaps"].sum() > 0


@pytest.mark.parametrize("max_swaps", [0, 1])
def test_a_row_that_needs_more_swaps_than_allowed_says_so(max_swaps):
    p = problem(5, PATTERNS[1], rows=4, inputs=20, tokens=100)
    limited = best(p, max_swaps)
    assert (limited["swaps"] <= max_swaps).all()
    torch.testing.assert_close(limited["optimal"], best(p, 1000, of=reference)["swaps"] <= max_swaps)
    torch.testing.assert_close(limited["sweeps"], limited["swaps"] + 1)


def test_equal_swaps_take_the_lowest_columns():
    check_equal_swaps(cuda, DEVICE)


@pytest.mark.parametrize("seed", range(8))
def test_no_swap_is_made_for_rounding_alone(seed):
    result = optimum(cancelling(seed))
    assert result["optimal"].all()
    assert result["swaps"].sum() < 50


def test_tensors_on_a_gpu_get_this_backend():
    assert backend(torch.device("cuda"), "swaps", AUTO) is cuda
