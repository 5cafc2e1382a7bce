import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DEGENERATE, PATTERNS, problem, problems

from prunelib import NOfM, PerLayer, PerRow, select
from prunelib.errors import NumericalError, PatternError
from prunelib.methods.contract import ExtraInputs
from prunelib.refiners import dsnot
from prunelib.refiners.dsnot import Settings, refine

TOKENS = 50


def cycle_by_cycle(w, m, mean, variance, norm, group, max_cycles, threshold):
    """DSnoT on one row, from the equations: (mask, cycles made)."""
    m = np.array(m)
    E = 2048 * mean
    start = np.sign(sum(w[k] * E[k] for k in range(len(w)) if not m[k]))
    for cycle in range(max_cycles):
        eps = sum(w[k] * E[k] for k in range(len(w)) if not m[k])
        if abs(eps) < threshold or np.sign(eps) != start:
            return m, cycle
        grow = [i for i in range(len(w)) if not m[i] and start * w[i] * E[i] > 0]
        prune = [j for j in range(len(w)) if m[j] and start * w[j] * E[j] < 0]
        grow = [i for i in grow if any(i // group == j // group for j in prune)]
        if not grow:
            return m, cycle
        i = max(grow, key=lambda i: (start * w[i] * E[i] / variance[i], -i))
        j = min((j for j in prune if j // group == i // group), key=lambda j: (abs(w[j]) * norm[j], j))
        m[i], m[j] = True, False
    return m, max_cycles


def expected(p, mean, given_settings):
    square = p.gram.diagonal().double().numpy() / TOKENS
    mean = mean.double().numpy()
    variance = np.maximum(np.maximum(square - mean**2, 1e-6 * square), np.finfo(np.float32).tiny)
    norm = np.sqrt(p.gram.diagonal().double().numpy())
    limits = (p.group, given_settings.max_cycles, given_settings.update_threshold)
    rows = zip(p.weight.double().numpy(), p.mask.numpy(), strict=True)
    masks, cycles = zip(*(cycle_by_cycle(w, m, mean, variance, norm, *limits) for w, m in rows), strict=True)
    return np.array(masks), list(cycles)


def some_mean(p, seed):
    """A mean that inputs with this Gram matrix might have."""
    lean = 2 * torch.rand(len(p.gram), generator=torch.Generator().manual_seed(seed)) - 1
    return lean * (p.gram.diagonal().double() / TOKENS).sqrt().float()


def refined(p, mean, given_settings):
    return refine(
        p.weight, p.gram, p.mask, p.pattern, given_settings, extra=ExtraInputs(input_mean=mean, tokens=TOKENS)
    )


@settings(max_examples=150)
@given(problems(), st.integers(0, 1000), st.sampled_from([1, 2, 50]), st.sampled_from([1e-3, 0.1, 1000.0]))
def test_it_makes_the_cycles_of_the_equations(p, seed, max_cycles, threshold):
    mean, limits = some_mean(p, seed), Settings(max_cycles=max_cycles, update_threshold=threshold)
    found = refined(p, mean, limits)
    masks, cycles = expected(p, mean, limits)
    np.testing.assert_array_equal(found.mask, masks)
    assert found.swaps.tolist() == cycles


@settings(max_examples=60)
@given(problems(), st.integers(0, 1000))
def test_every_row_and_group_keeps_its_number_and_the_losses_are_true(p, seed):
    weight, mask = p.weight.clone(), p.mask.clone()
    found = refined(p, some_mean(p, seed), Settings())
    assert torch.equal(p.weight, weight)
    assert torch.equal(p.mask, mask)
    groups = (len(p.mask), -1, p.group)
    assert torch.equal(found.mask.view(groups).sum(-1), p.mask.view(groups).sum(-1))
    for losses, of_mask in ((found.loss_before, p.mask), (found.loss_after, found.mask)):
        exact = oracles.losses(p.weight.numpy(), p.gram.numpy(), of_mask.numpy())
        np.testing.assert_allclose(losses, exact, rtol=1e-6, atol=1e-9 * max(1, float(losses.max())))


def test_the_expected_error_falls_until_it_is_small_or_changes_its_sign():
    p = problem(3, PATTERNS[1], rows=20, inputs=60, tokens=TOKENS)
    mean = some_mean(p, 3)

    def errors(mask):
        return 2048 * (p.weight.masked_fill(mask, 0) * mean).sum(dim=1)

    sign = errors(p.mask).sign()
    path = torch.stack([sign * errors(refined(p, mean, Settings(max_cycles=cycles)).mask) for cycles in range(1, 30)])
    assert (path.diff(dim=0) <= 0).all()
    assert (path[-1] < 0.1).all()


def test_a_row_of_four_by_hand():
    weight = torch.tensor([[3.0, -1.0, 2.0, -4.0]])
    mask = torch.tensor([[False, True, False, True]])  # eps = 5 E[x]: grow 0 (the larger), prune 1 (the less salient)
    gram, mean = 4 * torch.eye(4), torch.full((4,), 0.5)
    found = refine(
        weight, gram, mask, PerRow(sparsity=0.5), Settings(max_cycles=1), extra=ExtraInputs(input_mean=mean, tokens=4)
    )
    assert found.mask.tolist() == [[True, False, False, True]]
    assert found.swaps.tolist() == [1]
    assert (found.loss_before.tolist(), found.loss_after.tolist()) == ([52], [20])


def test_of_two_equal_gains_the_steadier_input_grows():
    weight, mask = torch.tensor([[1.0, 1.0, -1.0]]), torch.tensor([[False, False, True]])
    gram, mean = torch.diag(torch.tensor([9.0, 4.0, 4.0])), torch.full((3,), 0.5)
    found = refine(
        weight, gram, mask, PerRow(sparsity=0.7), Settings(max_cycles=1), extra=ExtraInputs(input_mean=mean, tokens=4)
    )
    assert found.mask.tolist() == [[False, True, False]]


def test_n_of_m_passes_over_a_group_with_nothing_to_prune():
    weight = torch.tensor([[9.0, 1.0, 2.0, -1.0]])  # 9 is best, but beside it stands no weight to prune
    mask = torch.tensor([[False, True, False, True]])
    gram, mean = 4 * torch.eye(4), torch.full((4,), 0.5)
    found = refine(weight, gram, mask, NOfM(keep=1, group=2), extra=ExtraInputs(input_mean=mean, tokens=4))
    assert found.mask.tolist() == [[False, True, True, False]]


def test_per_layer_keeps_the_number_of_every_row_empty_and_full_ones_too():
    p = problem(4, PerLayer(sparsity=0.5), rows=6, inputs=10, tokens=TOKENS)
    scores = (
        torch.rand(6, 10, generator=torch.Generator().manual_seed(4)) + torch.tensor([9.0, 0, 0, 0, 0, -9])[:, None]
    )
    mask = select(scores, p.pattern)
    found = refine(p.weight, p.gram, mask, p.pattern, extra=ExtraInputs(input_mean=some_mean(p, 4), tokens=TOKENS))
    assert torch.equal(found.mask.sum(dim=1), mask.sum(dim=1))
    assert {0, 10} <= set(mask.sum(dim=1).tolist())
    assert found.swaps.sum() > 0


def test_inputs_of_zero_mean_leave_the_mask_as_it_is():
    p = problem(5, PATTERNS[2], rows=4, inputs=20, tokens=TOKENS)
    found = refined(p, torch.zeros(20), Settings())
    assert torch.equal(found.mask, p.mask)
    assert torch.equal(found.loss_after, found.loss_before)


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_constant_inputs_without_variance_end_finite(degenerate):
    p = problem(6, PATTERNS[1], rows=5, inputs=18, tokens=TOKENS, degenerate=degenerate)
    constant = (p.gram.diagonal().double() / TOKENS).sqrt().float()
    found = refined(p, constant, Settings())
    assert found.loss_after.isfinite().all()
    assert torch.equal(found.mask.sum(dim=1), p.mask.sum(dim=1))


def test_the_number_of_threads_and_the_size_of_chunks_change_nothing(monkeypatch):
    p = problem(7, PATTERNS[2], rows=30, inputs=64, tokens=TOKENS)
    mean, threads = some_mean(p, 7), torch.get_num_threads()
    one = refined(p, mean, Settings())
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr(dsnot, "_CHUNK", 7)
        told = []
        other = refine(
            p.weight,
            p.gram,
            p.mask,
            p.pattern,
            progress=lambda *x: told.append(x),
            extra=ExtraInputs(input_mean=mean, tokens=TOKENS),
        )
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.mask, other.mask)
    rows, before, after = map(sum, zip(*told, strict=True))
    assert rows == 30
    assert before == pytest.approx(float(one.loss_before.sum()))
    assert after == pytest.approx(float(one.loss_after.sum()))


def test_bad_input_is_refused_in_one_line():
    p = problem(8, PATTERNS[4], rows=4, inputs=8, tokens=TOKENS)
    mean = some_mean(p, 8)
    with pytest.raises(NumericalError, match="input_mean: missing"):
        refine(p.weight, p.gram, p.mask, p.pattern)
    with pytest.raises(NumericalError, match="tokens: missing"):
        refine(p.weight, p.gram, p.mask, p.pattern, extra=ExtraInputs(input_mean=mean))
    with pytest.raises(NumericalError, match=r"input_mean: shape \(4,\), expected \(8,\)"):
        refined(p, mean[:4], Settings())
    for wrong in (mean * torch.nan, mean + 1e6):
        with pytest.raises(NumericalError, match="not the mean of the Gram matrix's inputs over 50 tokens"):
            refined(p, wrong, Settings())
    with pytest.raises(PatternError, match="groups do not keep exactly 1 of 4"):
        refine(p.weight, p.gram, ~p.mask, p.pattern, extra=ExtraInputs(input_mean=mean, tokens=TOKENS))
    with pytest.raises(NumericalError, match="weight: NaN"):
        refine(p.weight * torch.nan, p.gram, p.mask, p.pattern, extra=ExtraInputs(input_mean=mean, tokens=TOKENS))
