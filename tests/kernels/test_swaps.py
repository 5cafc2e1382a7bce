"""The backends against brute force, and against each other."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems
from swap_backends import all_or_none, cancelling, check_all_or_none, check_equal_swaps, check_the_pair_term, finished

from prunelib import NOfM
from prunelib.kernels import cpu_common as compiled
from prunelib.kernels.scaling import equilibrate
from prunelib.kernels.swaps import cpu, reference
from prunelib.kernels.swaps.cpu_rows import bound_over_row
from prunelib.kernels.swaps.reach import reach_of

BACKENDS = [cpu, reference]


def best(backend, p, max_swaps, threads=1):
    scaled = equilibrate(p.weight, p.gram)
    return finished(backend.swap_best(scaled.weight, scaled.gram, p.mask, p.group, max_swaps, threads))


def optimum(backend, p, threads=1):
    scaled = equilibrate(p.weight, p.gram)
    return finished(backend.swap_to_optimum(scaled.weight, scaled.gram, p.mask, p.group, threads))


def assert_optimal(p, mask):
    scaled = equilibrate(p.weight, p.gram)
    for w, m in zip(scaled.weight.numpy(), mask.numpy(), strict=True):
        assert oracles.is_swap_optimal(w, scaled.gram.double().numpy(), m, p.group)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_pair_term_matters(backend):
    check_the_pair_term(backend)


def test_the_change_of_every_swap_is_the_difference_of_losses():
    p = problem(0, PATTERNS[2], rows=3, inputs=9, tokens=40)
    w, G = p.weight.double(), p.gram.double()
    changes, _ = reference.swap_changes(w, G, p.mask, p.group)
    for r in range(3):
        for u, j in oracles.swap_pairs(p.mask[r].numpy(), p.group):
            expected = oracles.swap_change(w[r].numpy(), G.numpy(), p.mask[r].numpy(), u, j)
            assert changes[r, u, j].item() == pytest.approx(expected, rel=1e-9)


ODD_GROUPS = [NOfM(keep=1, group=2), NOfM(keep=2, group=3), NOfM(keep=5, group=10)]


@pytest.mark.parametrize("pattern", [*PATTERNS, *ODD_GROUPS], ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("max_swaps", [1, 3, 50])
def test_best_swaps_are_those_of_brute_force(backend, pattern, max_swaps):
    p = problem(1, pattern, rows=5, inputs=30 if pattern in ODD_GROUPS else 16, tokens=50)
    result = best(backend, p, max_swaps)
    for r in range(5):
        expected = oracles.best_swaps(p.weight[r].numpy(), p.gram.numpy(), p.mask[r].numpy(), p.group, max_swaps)
        np.testing.assert_array_equal(result["mask"][r].numpy(), expected)


@settings(max_examples=150)
@given(problems())
def test_compiled_and_plain_backend_make_the_same_best_swaps(p):
    for max_swaps in (1, 4, 1000):
        compiled, plain = best(cpu, p, max_swaps), best(reference, p, max_swaps)
        torch.testing.assert_close(compiled["loss_after"], plain["loss_after"], rtol=1e-8, atol=1e-9)
        if p.separable:
            torch.testing.assert_close(compiled["mask"], plain["mask"])
            torch.testing.assert_close(compiled["swaps"], plain["swaps"])
            torch.testing.assert_close(compiled["optimal"], plain["optimal"])


@settings(max_examples=100)
@given(problems(max_inputs=10))
def test_both_ways_end_in_a_swap_optimum_by_brute_force(p):
    for result in (optimum(cpu, p), optimum(reference, p), best(cpu, p, 10_000)):
        assert result["optimal"].all()
        assert_optimal(p, result["mask"])


@pytest.mark.parametrize("tokens", [1, 2, 5, 300])
def test_sweeps_pass_over_no_swap_that_improves_however_alike_inputs_are(tokens):
    p = problem(tokens, PATTERNS[1], rows=3, inputs=80, tokens=tokens)
    result = optimum(cpu, p)
    assert result["optimal"].all()
    assert_optimal(p, result["mask"])


@given(problems(patterns=[pattern for pattern in PATTERNS if not isinstance(pattern, NOfM)]))
def test_no_swap_that_prunes_an_input_changes_the_loss_by_less_than_its_bound(p):
    scaled = equilibrate(p.weight, p.gram)
    w, G, m, norm = scaled.weight.double(), scaled.gram.double(), p.mask, scaled.gram.double().diagonal().sqrt()
    changes, _ = reference.swap_changes(w, G, m, p.group)
    c = w.masked_fill(m, 0) @ G
    prune, restore = w * (w * G.diagonal() + 2 * c), w * (w * G.diagonal() - 2 * c)
    heaviest = (w.abs() * norm).masked_fill(m, 0).amax(dim=1, keepdim=True)
    least = restore.masked_fill(m, torch.inf).amin(dim=1, keepdim=True)
    farthest = reach_of(scaled.gram, len(scaled.gram))[:, 0].double()
    bound = prune + bound_over_row.py_func(w, farthest, least, heaviest)
    terms = prune.abs() + restore.abs().amax(dim=1, keepdim=True) + w.abs() * norm * heaviest
    assert (changes.amin(dim=2) >= bound - 1e-6 * terms)[m].all()


@settings(max_examples=50)
@given(problems(max_inputs=10, patterns=PER_LAYER))
def test_rows_that_keep_any_number_end_in_a_swap_optimum_too(p):
    for result in (optimum(cpu, p), optimum(reference, p), best(cpu, p, 10_000)):
        assert result["optimal"].all()
        assert_optimal(p, result["mask"])
        torch.testing.assert_close(result["mask"].sum(dim=1), p.mask.sum(dim=1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_keep_all_or_none_stay_as_they_are(backend):
    p = all_or_none()
    for result in (optimum(backend, p), best(backend, p, 5)):
        check_all_or_none(p, result)
        assert result["loss_after"][0] == 0


@settings(max_examples=100)
@given(problems(max_inputs=24))
def test_losses_fall_counts_stay_and_losses_are_those_of_the_masks(p):
    scaled = equilibrate(p.weight, p.gram)
    for result in (optimum(cpu, p), best(cpu, p, 2)):
        before = oracles.losses(scaled.weight.numpy(), scaled.gram.numpy(), p.mask.numpy()).clip(min=0)
        after = oracles.losses(scaled.weight.numpy(), scaled.gram.numpy(), result["mask"].numpy()).clip(min=0)
        scale = 1e-9 * (1 + before)
        assert (result["loss_after"] <= result["loss_before"]).all()
        assert (np.abs(result["loss_before"].numpy() - before) <= scale).all()
        assert (np.abs(result["loss_after"].numpy() - after) <= scale).all()
        shape = (len(p.mask), -1, p.group)
        torch.testing.assert_close(result["mask"].view(shape).sum(-1), p.mask.view(shape).sum(-1))
        moved = (result["mask"] != p.mask).sum(dim=1)
        assert (moved <= 2 * result["swaps"]).all()


@pytest.mark.parametrize("degenerate", DEGENERATE)
@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (1, 2), (33, 5), (70, 44), (3, 203)])
def test_awkward_sizes_agree_whatever_the_threads(degenerate, rows, inputs):
    p = problem(3, PATTERNS[2], rows, inputs, tokens=2 * inputs, degenerate=degenerate)
    one, three = optimum(cpu, p, threads=1), optimum(cpu, p, threads=3)
    for name, value in one.items():
        torch.testing.assert_close(value, three[name], rtol=0, atol=0)
    assert optimum(reference, type(p)(p.weight, p.gram, one["mask"], p.pattern))["swaps"].sum() == 0


def test_a_tile_smaller_than_the_row_changes_nothing(monkeypatch):
    p = problem(4, PATTERNS[1], rows=9, inputs=61, tokens=100)
    whole = optimum(cpu, p)
    monkeypatch.setattr(compiled, "_TILE_BYTES", 61 * 4 * 7)
    monkeypatch.setattr(compiled, "_CHUNK_ROWS", 2)
    torch.testing.assert_close(optimum(cpu, p)["mask"], whole["mask"])


def test_a_row_that_needs_more_swaps_than_allowed_says_so():
    p = problem(5, PATTERNS[1], rows=8, inputs=40, tokens=200)
    limited = best(cpu, p, 1)
    needed = best(cpu, p, 1000)["swaps"]
    torch.testing.assert_close(limited["optimal"], needed <= 1)
    assert (needed > 1).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_swaps_take_the_lowest_columns(backend):
    check_equal_swaps(backend)
    weight, gram, mask = (
        torch.tensor([[1.0, 1, 2, 2] * 2]),
        torch.eye(8),
        torch.tensor([[True, True, False, False] * 2]),
    )
    within_groups = finished(backend.swap_best(weight, gram, mask, 4, 1, 1))["mask"]
    assert within_groups.tolist() == [[False, True, True, False, True, True, False, False]]


@settings(max_examples=60)
@given(problems())
def test_equilibration_is_exact_and_keeps_the_losses(p):
    scaled = equilibrate(p.weight, p.gram)
    diagonal = scaled.gram.diagonal()
    assert ((diagonal == 0) | ((diagonal >= 0.49) & (diagonal <= 2.01))).all()
    assert (scaled.weight.abs() <= 1).all()
    true = oracles.losses(p.weight.numpy(), ((p.gram + p.gram.T) / 2).numpy(), p.mask.numpy())
    found = oracles.losses(scaled.weight.numpy(), scaled.gram.numpy(), p.mask.numpy()) * scaled.loss_scale.numpy()
    largest = oracles.losses(p.weight.abs().numpy(), p.gram.abs().numpy(), p.mask.numpy())
    assert (np.abs(true - found) <= 1e-6 * largest).all()


@pytest.mark.parametrize("seed", range(200))
def test_no_swap_is_made_for_rounding_alone(seed):
    result = optimum(cpu, cancelling(seed))
    assert result["optimal"].all()
    assert result["swaps"].sum() < 50


def all_changes(layer, mask):
    """The float64 change by every swap of one row, a slice of the kept places at a time: place, place, change."""
    w, G, m = layer.weight[0].double(), layer.gram, mask[0]
    kept, pruned = m.nonzero()[:, 0], (~m).nonzero()[:, 0]
    c = sum(w[some] @ G[some].double() for some in pruned.split(1024))
    energy = w**2 * G.diagonal()
    for some in kept.split(1024):
        pairs = 2 * w[some][:, None] * w[pruned] * G[some][:, pruned]
        yield some, pruned, (energy + 2 * w * c)[some][:, None] + (energy - 2 * w * c)[pruned] - pairs


def best_of_all(layer, mask):
    """The least change of one row, and its swap."""
    bests = []
    for kept, pruned, changes in all_changes(layer, mask):
        least, at = changes.flatten().min(dim=0)
        bests.append((float(least), int(kept[at // len(pruned)]), int(pruned[at % len(pruned)])))
    return min(bests)


@pytest.mark.slow
def test_a_row_as_wide_as_the_widest_of_8b():
    p = problem(23, PATTERNS[2], rows=1, inputs=14336, tokens=600)
    scaled = equilibrate(p.weight, p.gram)
    layer = (scaled.weight, scaled.gram, p.mask, 14336)
    change, u, j = best_of_all(scaled, p.mask)
    once = finished(cpu.swap_best(*layer, 1, 2))
    torch.testing.assert_close(once["loss_after"] - once["loss_before"], torch.tensor([change], dtype=torch.float64))
    assert (once["mask"] != p.mask).nonzero()[:, 1].tolist() == sorted((u, j))
    ended = finished(cpu.swap_to_optimum(*layer, 2))
    assert ended["optimal"].all()
    assert best_of_all(scaled, ended["mask"])[0] >= -1e-9 * ended["loss_after"][0]
