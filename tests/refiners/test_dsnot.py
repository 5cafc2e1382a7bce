import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems

from prunelib import NOfM, PerLayer, PerRow, select
from prunelib.errors import NumericalError, PatternError
from prunelib.methods.contract import ExtraInputs
from prunelib.refiners.dsnot import DSnoT, dsnot

TOKENS, WINDOWS = 50, 5
SIGNS = [DSnoT(), DSnoT(same_sign=True)]


def cycle_by_cycle(w, m, inputs, group, chosen):
    """DSnoT on one row, by the rule of the authors' script: (mask, cycles made). ``group`` is None but under N:M."""
    m, total, variance, norm = np.array(m), *inputs
    share, saliency = [w[k] * total[k] for k in range(len(w))], [abs(w[k]) * norm[k] for k in range(len(w))]
    growable, prunable = set(np.flatnonzero(~m)), sorted(np.flatnonzero(m), key=lambda k: (saliency[k], k))
    eps = sum(share[k] for k in sorted(growable))
    first = np.sign(eps)
    lowering = [k for k in prunable if first * share[k] < 0]
    neutral = [k for k in prunable if share[k] == 0]
    both_ends = lowering + neutral + [k for k in prunable if first * share[k] > 0][::-1]
    for cycle in range(chosen.max_cycles):
        if abs(eps) <= chosen.update_threshold:
            return m, cycle
        sign = np.sign(eps)
        partner = dict.fromkeys(growable, both_ends[0 if sign == first else -1] if both_ends else None)
        if group:
            beside = {i: [j for j in prunable if j // group == i // group] for i in growable}
            partner = {i: js[0] if js else None for i, js in beside.items()}
        grow = [i for i in growable if sign * share[i] > 0 and partner[i] is not None]
        if not grow:
            return m, cycle
        i = max(grow, key=lambda i: (sign * share[i] / variance[i], -first * sign * i))
        j = partner[i]
        after = eps - (share[i] - share[j])
        if (group or chosen.same_sign) and np.sign(after) != first:
            return m, cycle
        m[i], m[j], eps = True, False, after
        growable.remove(i)
        prunable.remove(j)
        both_ends.remove(j)
    return m, chosen.max_cycles


def expected(p, mean, chosen):
    square = p.gram.diagonal().double().numpy() / TOKENS
    mean = mean.double().numpy()
    variance = np.maximum(np.maximum(square - mean**2, 1e-6 * square), np.finfo(np.float32).tiny)
    inputs = mean * (TOKENS / WINDOWS), variance, np.sqrt(p.gram.diagonal().double().numpy())
    group = p.pattern.group if isinstance(p.pattern, NOfM) else None
    rows = zip(p.weight.double().numpy(), p.mask.numpy(), strict=True)
    masks, cycles = zip(*(cycle_by_cycle(w, m, inputs, group, chosen) for w, m in rows), strict=True)
    return np.array(masks), list(cycles)


def some_mean(p, seed):
    """A mean that inputs with this Gram matrix might have."""
    lean = 2 * torch.rand(len(p.gram), generator=torch.Generator().manual_seed(seed)) - 1
    return lean * (p.gram.diagonal().double() / TOKENS).sqrt().float()


def of(mean, tokens=TOKENS, windows=WINDOWS, name=None):
    return ExtraInputs(input_mean=mean, tokens=tokens, windows=windows, name=name)


def refined(p, mean, chosen):
    return dsnot(p.weight, p.gram, p.mask, p.pattern, chosen, extra=of(mean))


@settings(max_examples=300)
@given(
    problems(patterns=[*PATTERNS, *PER_LAYER]),
    st.integers(0, 1000),
    st.sampled_from([1, 2, 50]),
    st.sampled_from([1e-3, 0.1, 1000.0]),
    st.booleans(),
)
def test_it_makes_the_cycles_of_the_rule(p, seed, max_cycles, threshold, same_sign):
    chosen = DSnoT(max_cycles=max_cycles, update_threshold=threshold, same_sign=same_sign)
    mean = some_mean(p, seed)
    found = refined(p, mean, chosen)
    masks, cycles = expected(p, mean, chosen)
    np.testing.assert_array_equal(found.mask, masks)
    assert found.swaps.tolist() == cycles


@pytest.mark.parametrize("pattern", [*PATTERNS, *PER_LAYER], ids=lambda pattern: pattern.label)
@pytest.mark.parametrize("chosen", SIGNS, ids=["either sign", "same sign"])
def test_it_makes_the_cycles_of_the_rule_on_wide_rows(pattern, chosen):
    p = problem(9, pattern, rows=20, inputs=200, tokens=TOKENS)
    mean = some_mean(p, 9)
    found = refined(p, mean, chosen)
    masks, cycles = expected(p, mean, chosen)
    np.testing.assert_array_equal(found.mask, masks)
    assert found.swaps.tolist() == cycles
    assert sum(cycles) > 20


@settings(max_examples=60)
@given(problems(), st.integers(0, 1000))
def test_every_row_and_group_keeps_its_number_and_the_losses_are_true(p, seed):
    weight, mask = p.weight.clone(), p.mask.clone()
    found = refined(p, some_mean(p, seed), DSnoT())
    assert torch.equal(p.weight, weight)
    assert torch.equal(p.mask, mask)
    groups = (len(p.mask), -1, p.group)
    assert torch.equal(found.mask.view(groups).sum(-1), p.mask.view(groups).sum(-1))
    for losses, of_mask in ((found.loss_before, p.mask), (found.loss_after, found.mask)):
        exact = oracles.losses(p.weight.numpy(), p.gram.numpy(), of_mask.numpy())
        np.testing.assert_allclose(losses, exact, rtol=1e-6, atol=1e-9 * max(1, float(losses.max())))


def errors(p, mean, mask):
    """The expected errors of the rows, summed over a window."""
    return (p.weight.masked_fill(mask, 0).double() * mean * TOKENS / WINDOWS).sum(dim=1)


@pytest.mark.parametrize("pattern", [PATTERNS[1], NOfM(keep=2, group=4)], ids=lambda pattern: pattern.label)
def test_with_the_same_sign_no_expected_error_changes_its_sign(pattern):
    p = problem(3, pattern, rows=20, inputs=60, tokens=TOKENS)
    mean = some_mean(p, 3)
    sign = errors(p, mean, p.mask).sign()
    path = [sign * errors(p, mean, refined(p, mean, DSnoT(max_cycles=n, same_sign=True)).mask) for n in range(1, 30)]
    assert (torch.stack(path) > 0).all()


def test_after_a_change_of_sign_a_row_goes_on():
    p = problem(3, PATTERNS[1], rows=20, inputs=60, tokens=TOKENS)
    mean = some_mean(p, 3)
    either, same = (refined(p, mean, chosen) for chosen in SIGNS)
    assert (either.swaps >= same.swaps).all()
    assert either.swaps.sum() > same.swaps.sum()
    changed = errors(p, mean, p.mask).sign() != errors(p, mean, either.mask).sign()
    assert changed.any()


def by_hand(weight, mask, variance, pattern, chosen):
    """One row of inputs with E[x] = 1 over windows of one token."""
    weight, mask = torch.tensor([weight]), torch.tensor([mask]).bool()
    count = weight.shape[1]
    gram = 4.0 * torch.diag(1 + torch.tensor(variance))
    return dsnot(weight, gram, mask, pattern, chosen, extra=of(torch.ones(count), tokens=4, windows=4))


def test_a_row_of_four_by_hand():
    start = [3.0, -1.0, 2.0, -4.0], [0, 1, 0, 1], [1.0] * 4  # eps = 5: grow 0, prune 1, to eps = 1
    found = by_hand(*start, PerRow(sparsity=0.5), DSnoT(max_cycles=1))
    assert found.mask.tolist() == [[True, False, False, True]]
    assert found.swaps.tolist() == [1]
    assert (found.loss_before.tolist(), found.loss_after.tolist()) == ([104], [40])
    again = by_hand(*start, PerRow(sparsity=0.5), DSnoT())  # then grow 2, prune 3, to -5; none is left to grow
    assert again.mask.tolist() == [[True, False, True, False]]
    assert again.swaps.tolist() == [2]
    same = by_hand(*start, PerRow(sparsity=0.5), DSnoT(same_sign=True))
    assert torch.equal(same.mask, found.mask)


def test_a_row_returns_after_a_change_of_sign():
    # eps = 1: grow 0 and prune 1, to eps = -8; then grow 3, the steadier, and prune 5, to eps = 1
    weight, mask = [4.0, -5.0, -1.0, -2.0, -7.0, 7.0], [0, 1, 0, 0, 1, 1]
    variance = [1.0, 1.0, 1.0, 0.1, 1.0, 1.0]
    found = by_hand(weight, mask, variance, PerRow(sparsity=0.5), DSnoT(max_cycles=2))
    assert found.mask.tolist() == [[True, False, False, True, True, False]]
    assert found.swaps.tolist() == [2]


def test_a_row_with_none_left_that_lowers_the_error_prunes_the_most_salient_of_the_others():
    # eps = 20: grow 0 and prune 3; then grow 1 and prune 6, whose sign is that of eps; then grow 2 and prune 5
    weight, mask = [9.0, 6.0, 5.0, -1.0, 2.0, 4.0, 8.0, 3.0], [0, 0, 0, 1, 1, 1, 1, 1]
    for cycles, pruned in ((1, {3}), (2, {3, 6}), (3, {3, 6, 5})):
        found = by_hand(weight, mask, [1.0] * 8, PerRow(sparsity=0.375), DSnoT(max_cycles=cycles))
        assert set((~found.mask[0]).nonzero().flatten().tolist()) == {0, 1, 2} - set(range(cycles)) | pruned


def test_no_weight_is_pruned_twice_from_the_two_ends():
    # eps = 1: grow 0 and prune 1; eps = -10: grow 2, but no kept weight is left to prune
    found = by_hand([6.0, -5.0, -5.0], [0, 1, 0], [1.0, 1.0, 1.0], PerRow(sparsity=0.67), DSnoT())
    assert found.mask.tolist() == [[True, False, False]]
    assert found.swaps.tolist() == [1]


def test_a_row_is_done_at_the_threshold():
    start = [3.0, -1.0, 2.0, -4.0], [0, 1, 0, 1], [1.0] * 4, PerRow(sparsity=0.5)
    assert by_hand(*start, DSnoT(update_threshold=5.0)).swaps.tolist() == [0]
    assert by_hand(*start, DSnoT(update_threshold=4.9)).swaps.tolist() == [1]


def test_the_threshold_is_of_the_sum_over_a_window():
    p = problem(3, PATTERNS[1], rows=20, inputs=60, tokens=TOKENS)
    mean = some_mean(p, 3)
    start = errors(p, mean, p.mask).abs()
    for factor, cycles in ((1.001, 0), (0.999, 1)):
        found = refined(p, mean, DSnoT(update_threshold=factor * float(start.max()), max_cycles=1))
        assert int(found.swaps.sum()) == cycles


def test_of_two_equal_gains_the_steadier_input_grows():
    found = by_hand([1.0, 1.0, -1.0], [0, 0, 1], [8.0, 3.0, 3.0], PerRow(sparsity=0.7), DSnoT(max_cycles=1))
    assert found.mask.tolist() == [[False, True, False]]


def test_n_of_m_prunes_the_lowest_of_the_group_whatever_its_sign():
    # eps = 14.5: grow 0 and prune 1, though w_1 E[x_1] has the sign of eps
    weight, mask = [10.0, 1.0, 2.0, -3.0, 3.0, 5.0, 0.5, -0.5], [0, 1, 0, 1, 0, 1, 1, 0]
    found = by_hand(weight, mask, [1.0] * 8, NOfM(keep=2, group=4), DSnoT(max_cycles=1))
    assert found.mask.tolist() == [[True, False, False, True, False, True, True, False]]


def test_n_of_m_passes_over_a_group_with_nothing_left_to_prune():
    # eps = 21.5: grow 0 and prune 3; 1 and 2 have no partner left, so that 4 is grown and 6 pruned
    weight, mask = [9.0, 4.0, 5.0, 1.0, 2.0, 1.0, 1.0, 0.5], [0, 0, 0, 1, 0, 0, 1, 0]
    found = by_hand(weight, mask, [1.0] * 8, NOfM(keep=1, group=4), DSnoT())
    assert found.mask.tolist() == [[True, False, False, False, True, False, False, False]]
    assert found.swaps.tolist() == [2]


def test_n_of_m_may_raise_the_expected_error():
    weight, mask = [1.0, 8.0, 0.5, 9.0], [0, 1, 0, 1]  # eps = 1.5: grow 0, prune 1, to 8.5
    found = by_hand(weight, mask, [1.0] * 4, NOfM(keep=2, group=4), DSnoT(max_cycles=1))
    assert found.mask.tolist() == [[True, False, False, True]]


def test_layers_named_in_skip_stay_as_they_are():
    p = problem(3, PATTERNS[1], rows=20, inputs=60, tokens=TOKENS)
    mean, heard = some_mean(p, 3), []
    skipping, plain = DSnoT(skip=("*.mlp.*", "*.k_proj")), refined(p, mean, DSnoT())
    assert not torch.equal(plain.mask, p.mask)
    for part, skipped in (("mlp.up_proj", True), ("self_attn.k_proj", True), ("self_attn.q_proj", False)):
        known = of(mean, name=f"model.layers.0.{part}")
        rest = (skipping, lambda *figures: heard.append(figures), known)
        found = dsnot(p.weight, p.gram, p.mask, p.pattern, *rest)
        assert torch.equal(found.mask, p.mask if skipped else plain.mask)
        assert torch.equal(found.loss_after, found.loss_before if skipped else plain.loss_after)
        assert bool(found.swaps.any()) != skipped
    assert sum(rows for rows, _, _ in heard) == 60


def test_per_layer_keeps_the_number_of_every_row_empty_and_full_ones_too():
    p = problem(4, PerLayer(sparsity=0.5), rows=6, inputs=10, tokens=TOKENS)
    scores = (
        torch.rand(6, 10, generator=torch.Generator().manual_seed(4)) + torch.tensor([9.0, 0, 0, 0, 0, -9])[:, None]
    )
    mask = select(scores, p.pattern)
    found = dsnot(p.weight, p.gram, mask, p.pattern, extra=of(some_mean(p, 4)))
    assert torch.equal(found.mask.sum(dim=1), mask.sum(dim=1))
    assert {0, 10} <= set(mask.sum(dim=1).tolist())
    assert found.swaps.sum() > 0


def test_inputs_of_zero_mean_leave_the_mask_as_it_is():
    p = problem(5, PATTERNS[2], rows=4, inputs=20, tokens=TOKENS)
    found = refined(p, torch.zeros(20), DSnoT())
    assert torch.equal(found.mask, p.mask)
    assert torch.equal(found.loss_after, found.loss_before)


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_constant_inputs_without_variance_end_finite(degenerate):
    p = problem(6, PATTERNS[1], rows=5, inputs=18, tokens=TOKENS, degenerate=degenerate)
    constant = (p.gram.diagonal().double() / TOKENS).sqrt().float()
    found = refined(p, constant, DSnoT())
    assert found.loss_after.isfinite().all()
    assert torch.equal(found.mask.sum(dim=1), p.mask.sum(dim=1))


def test_the_number_of_threads_and_the_size_of_chunks_change_nothing(monkeypatch):
    p = problem(7, PATTERNS[2], rows=30, inputs=64, tokens=TOKENS)
    mean, threads = some_mean(p, 7), torch.get_num_threads()
    one = refined(p, mean, DSnoT())
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr("prunelib.refiners.dsnot._CHUNK", 7)
        told = []
        other = dsnot(
            p.weight,
            p.gram,
            p.mask,
            p.pattern,
            progress=lambda *x: told.append(x),
            extra=of(mean),
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
        dsnot(p.weight, p.gram, p.mask, p.pattern)
    for missing in ("input_mean", "tokens", "windows"):
        with pytest.raises(NumericalError, match=f"{missing}: missing"):
            dsnot(p.weight, p.gram, p.mask, p.pattern, extra=of(mean)._replace(**{missing: None}))
    with pytest.raises(NumericalError, match="name: missing"):
        refined(p, mean, DSnoT(skip=("*.mlp.*",)))
    with pytest.raises(NumericalError, match=r"input_mean: shape \(4,\), expected \(8,\)"):
        refined(p, mean[:4], DSnoT())
    for wrong in (mean * torch.nan, mean + 1e6):
        with pytest.raises(NumericalError, match="not the mean of the Gram matrix's inputs over 50 tokens"):
            refined(p, wrong, DSnoT())
    with pytest.raises(PatternError, match="groups do not keep exactly 1 of 4"):
        dsnot(p.weight, p.gram, ~p.mask, p.pattern, extra=of(mean))
    with pytest.raises(NumericalError, match="weight: NaN"):
        dsnot(p.weight * torch.nan, p.gram, p.mask, p.pattern, extra=of(mean))


@pytest.mark.parametrize("pattern", [PATTERNS[1], PATTERNS[5]], ids=lambda pattern: pattern.label)
def test_the_mask_of_an_expert_that_saw_no_token_stays(pattern):
    p = problem(1, pattern, rows=5, inputs=24, tokens=50)
    found = dsnot(p.weight, torch.eye(24), p.mask, pattern, extra=of(torch.zeros(24), tokens=0))
    assert torch.equal(found.mask, p.mask)
    assert not found.swaps.any()
