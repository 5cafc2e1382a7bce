"""Best swaps within whole rows, on small layers cut into small segments: against brute force, and alike for any cut."""

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
from prunelib.kernels.scaling import equilibrate
from prunelib.kernels.swaps import cpu_best, reference

ROW_PATTERNS = [pattern for pattern in PATTERNS if not isinstance(pattern, NOfM)] + PER_LAYER
SIZES = [(3, 2), (1, 1), (8, 3), (64, 32)]


def best(p, max_swaps, sizes=(3, 2), threads=1):
    scaled = equilibrate(p.weight, p.gram)
    return finished(cpu_best.swap_best(scaled.weight, scaled.gram, p.mask, max_swaps, threads, *sizes))


def plain(p, max_swaps):
    scaled = equilibrate(p.weight, p.gram)
    return finished(reference.swap_best(scaled.weight, scaled.gram, p.mask, p.group, max_swaps, 1))


def assert_same(one, other):
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("max_swaps", [1, 3, 50])
@pytest.mark.parametrize("tokens", [2, 50])
def test_swaps_are_those_of_brute_force(sizes, max_swaps, tokens):
    p = problem(tokens, PATTERNS[1], rows=5, inputs=23, tokens=tokens)
    result = best(p, max_swaps, sizes)
    for w, m, found in zip(p.weight.numpy(), p.mask.numpy(), result["mask"].numpy(), strict=True):
        np.testing.assert_array_equal(found, oracles.best_swaps(w, p.gram.numpy(), m, len(w), max_swaps))


@settings(max_examples=150)
@given(problems(max_inputs=24, patterns=ROW_PATTERNS), st.sampled_from(SIZES), st.sampled_from([1, 4, 1000]))
def test_swaps_are_those_of_the_plain_backend(p, sizes, max_swaps):
    found, expected = best(p, max_swaps, sizes), plain(p, max_swaps)
    torch.testing.assert_close(found["loss_after"], expected["loss_after"], rtol=1e-8, atol=1e-9)
    if p.separable:
        for name in ("mask", "swaps", "optimal"):
            torch.testing.assert_close(found[name], expected[name])


@settings(max_examples=100)
@given(problems(max_inputs=12, patterns=ROW_PATTERNS), st.sampled_from(SIZES))
def test_rows_end_in_a_swap_optimum_by_brute_force(p, sizes):
    result, scaled = best(p, 10_000, sizes), equilibrate(p.weight, p.gram)
    assert result["optimal"].all()
    for w, m in zip(scaled.weight.numpy(), result["mask"].numpy(), strict=True):
        assert oracles.is_swap_optimal(w, scaled.gram.double().numpy(), m, len(w))


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (1, 2), (33, 5), (70, 44), (3, 203)])
def test_swaps_depend_neither_on_segments_nor_on_threads_and_chunks(monkeypatch, degenerate, rows, inputs):
    p = problem(3, PATTERNS[2], rows, inputs, tokens=2 * inputs, degenerate=degenerate)
    whole = best(p, 7, (inputs, 1))
    for sizes in SIZES:
        assert_same(whole, best(p, 7, sizes, threads=3))
    monkeypatch.setattr(compiled, "_CHUNK_ROWS", 1)
    assert_same(whole, best(p, 7))


def test_rows_that_keep_all_or_none_stay_as_they_are():
    p = all_or_none()
    check_all_or_none(p, best(p, 5))


@pytest.mark.parametrize("seed", range(50))
def test_no_swap_is_made_for_rounding_alone(seed):
    result = best(cancelling(seed), 10_000)
    assert result["optimal"].all()
    assert result["swaps"].sum() < 50
