"""Sweeps over wide rows, on small layers: against brute force, and alike however the work is cut."""

from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems
from swap_backends import all_or_none, cancelling, check_all_or_none, finished

from prunelib import NOfM
from prunelib.kernels import cpu_common as compiled
from prunelib.kernels.interface import WIDE
from prunelib.kernels.scaling import equilibrate
from prunelib.kernels.swaps import cpu, cpu_wide, reach, reference
from prunelib.kernels.swaps.cpu_wide import Sizes
from prunelib.kernels.swaps.reach import reach_of

ROW_PATTERNS = [pattern for pattern in PATTERNS if not isinstance(pattern, NOfM)] + PER_LAYER
PAGE = Path(__file__).parents[2] / "docs" / "pages" / "methods" / "sparseswaps.md"
SMALL = Sizes(block=4, segment=3, strip=2, failures=2)
SIZES = [Sizes(), SMALL, Sizes(block=1, segment=1, strip=1, failures=1), Sizes(block=7, segment=8, strip=3, failures=5)]


def optimum(p, threads=1, sizes=SMALL):
    scaled = equilibrate(p.weight, p.gram)
    return finished(cpu_wide.swap_to_optimum(scaled.weight, scaled.gram, p.mask, threads, sizes))


def assert_optimal(p, result):
    scaled = equilibrate(p.weight, p.gram)
    assert result["optimal"].all()
    for w, m in zip(scaled.weight.numpy(), result["mask"].numpy(), strict=True):
        assert oracles.is_swap_optimal(w, scaled.gram.double().numpy(), m, len(w))
    torch.testing.assert_close(result["mask"].sum(dim=1), p.mask.sum(dim=1))


@settings(max_examples=150)
@given(problems(max_inputs=12, patterns=ROW_PATTERNS), st.sampled_from(SIZES))
def test_rows_end_in_a_swap_optimum_by_brute_force(p, sizes):
    assert_optimal(p, optimum(p, sizes=sizes))


@pytest.mark.parametrize("tokens", [1, 2, 5, 300])
@pytest.mark.parametrize("sizes", SIZES)
def test_no_swap_that_improves_is_missed_however_alike_inputs_are(tokens, sizes):
    p = problem(tokens, PATTERNS[1], rows=3, inputs=61, tokens=tokens)
    assert_optimal(p, optimum(p, sizes=sizes))


@settings(max_examples=100)
@given(problems(max_inputs=24, patterns=ROW_PATTERNS), st.sampled_from(SIZES))
def test_losses_fall_and_are_those_of_the_masks(p, sizes):
    scaled = equilibrate(p.weight, p.gram)
    result = optimum(p, sizes=sizes)
    before = oracles.losses(scaled.weight.numpy(), scaled.gram.numpy(), p.mask.numpy()).clip(min=0)
    after = oracles.losses(scaled.weight.numpy(), scaled.gram.numpy(), result["mask"].numpy()).clip(min=0)
    assert (result["loss_after"] <= result["loss_before"]).all()
    assert (np.abs(result["loss_before"].numpy() - before) <= 1e-9 * (1 + before)).all()
    assert (np.abs(result["loss_after"].numpy() - after) <= 1e-9 * (1 + before)).all()
    assert ((result["mask"] != p.mask).sum(dim=1) <= 2 * result["swaps"]).all()


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (1, 2), (33, 5), (70, 44), (3, 203)])
def test_awkward_sizes_agree_whatever_the_threads(degenerate, rows, inputs):
    p = problem(3, PATTERNS[2], rows, inputs, tokens=2 * inputs, degenerate=degenerate)
    one, three = optimum(p, threads=1), optimum(p, threads=3)
    for name, value in one.items():
        torch.testing.assert_close(value, three[name], rtol=0, atol=0)
    assert finished(_reference_once(p, one["mask"]))["swaps"].sum() == 0


def _reference_once(p, mask):
    scaled = equilibrate(p.weight, p.gram)
    return reference.swap_to_optimum(scaled.weight, scaled.gram, mask, len(scaled.gram), 1)


def test_rows_alone_end_as_together(monkeypatch):
    p = problem(4, PATTERNS[1], rows=9, inputs=61, tokens=100)
    together = optimum(p)
    monkeypatch.setattr(compiled, "_TILE_BYTES", 61 * 4 * 7)
    monkeypatch.setattr(compiled, "_CHUNK_ROWS", 1)
    alone = optimum(p)
    for name, value in together.items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=0)


def test_rows_that_keep_all_or_none_stay_as_they_are():
    p = all_or_none()
    check_all_or_none(p, optimum(p))


@pytest.mark.parametrize("seed", range(50))
def test_no_swap_is_made_for_rounding_alone(seed):
    result = optimum(cancelling(seed))
    assert result["optimal"].all()
    assert result["swaps"].sum() < 50


def test_a_row_that_needs_more_sweeps_than_the_limit_says_so(monkeypatch):
    p = problem(21, PATTERNS[2], rows=3, inputs=24, tokens=60)
    monkeypatch.setattr(cpu_wide, "MAX_SWEEPS", 1)
    result = optimum(p)
    assert (result["sweeps"] == 1).all()
    assert (result["swaps"] > 0).all()
    assert not result["optimal"].any()


def test_the_first_sweep_ends_after_visits_without_a_swap_and_proves_nothing():
    p = problem(21, PATTERNS[2], rows=3, inputs=24, tokens=60)
    for sizes in SIZES:
        ended = optimum(p, sizes=sizes)
        again = finished(_wide_once(p, ended["mask"], sizes))
        assert again["swaps"].sum() == 0
        assert again["optimal"].all()


def _wide_once(p, mask, sizes):
    scaled = equilibrate(p.weight, p.gram)
    return cpu_wide.swap_to_optimum(scaled.weight, scaled.gram, mask, 1, sizes)


def test_rows_are_wide_from_a_number_of_inputs_on(monkeypatch):
    p = problem(5, PATTERNS[1], rows=4, inputs=40, tokens=200)
    scaled, expected = equilibrate(p.weight, p.gram), optimum(p, sizes=Sizes())
    monkeypatch.setattr(cpu, "WIDE", 40)
    result = finished(cpu.swap_to_optimum(scaled.weight, scaled.gram, p.mask, 40, 1))
    for name, value in expected.items():
        torch.testing.assert_close(value, result[name], rtol=0, atol=0)
    monkeypatch.setattr(cpu_wide, "swap_to_optimum", None)
    monkeypatch.setattr(cpu, "WIDE", 41)
    assert finished(cpu.swap_to_optimum(scaled.weight, scaled.gram, p.mask, 40, 1))["optimal"].all()


@pytest.mark.parametrize(("inputs", "segment"), [(1, 1), (5, 5), (7, 3), (6, 3), (5, 64)])
@pytest.mark.parametrize("strip", [2, 256])
def test_reach_is_the_largest_share_of_a_segment(monkeypatch, inputs, segment, strip):
    monkeypatch.setattr(reach, "_STRIP", strip)
    gram = problem(8, PATTERNS[0], rows=1, inputs=inputs, tokens=3, degenerate="dead inputs").gram
    G, norm = gram.numpy(), np.sqrt(np.diag(gram.numpy()))
    found = reach_of(gram, segment)
    assert found.shape == (inputs, -(-inputs // segment))
    for u in range(inputs):
        for s in range(found.shape[1]):
            js = [j for j in range(s * segment, min((s + 1) * segment, inputs)) if j != u and norm[j] > 0]
            expected = max((abs(G[u, j]) / norm[j] for j in js), default=0)
            assert found[u, s].item() == pytest.approx(expected, rel=1e-6)


def test_the_documentation_has_the_width_and_the_block():
    page = PAGE.read_text(encoding="utf-8")
    assert f"{WIDE:,} inputs" in page
    assert f"{Sizes().block} columns" in page
