"""The refiners as a user calls them."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import DEGENERATE, PATTERNS, PER_LAYER, problem, problems

from prunelib import NOfM, SparseSwaps, pruning_error, sparseswaps
from prunelib.algebra.objective import damped, row_losses
from prunelib.errors import NumericalError, ParamsError, PatternError
from prunelib.methods.contract import ExtraInputs
from prunelib.runtime.compute import Compute


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.label)
def test_losses_are_those_of_the_unscaled_layer(pattern):
    p = problem(7, pattern, rows=6, inputs=32, tokens=100)
    refined = sparseswaps(p.weight, p.gram, p.mask, pattern)
    G = ((p.gram + p.gram.T) / 2).numpy()
    np.testing.assert_allclose(refined.loss_before, oracles.losses(p.weight.numpy(), G, p.mask.numpy()), rtol=1e-9)
    np.testing.assert_allclose(refined.loss_after, oracles.losses(p.weight.numpy(), G, refined.mask.numpy()), rtol=1e-9)
    assert pruning_error(p.weight, p.gram, refined.mask) == pytest.approx(refined.loss_after.sum().item(), rel=1e-6)
    assert refined.optimal.all()


@pytest.mark.parametrize("pattern", [PATTERNS[1], NOfM(keep=2, group=4)], ids=lambda pattern: pattern.label)
def test_the_swap_optimum_lies_between_the_start_and_the_global_optimum(pattern):
    p = problem(8, pattern, rows=4, inputs=12, tokens=40)
    refined = sparseswaps(p.weight, p.gram, p.mask, pattern)
    size, keep = pattern.groups(4, 12)
    for r in range(4):
        least = oracles.global_optimum(p.weight[r].numpy(), p.gram.numpy(), size, keep)
        assert least <= refined.loss_after[r] * (1 + 1e-6)
    assert refined.loss_after.sum() < refined.loss_before.sum()


def test_more_swaps_lower_the_loss_until_the_optimum():
    p = problem(9, PATTERNS[1], rows=16, inputs=64, tokens=300)
    losses = [
        sparseswaps(p.weight, p.gram, p.mask, p.pattern, SparseSwaps(max_swaps=T)).loss_after.sum().item()
        for T in (1, 2, 5, 25)
    ]
    assert losses == sorted(losses, reverse=True)
    limited = sparseswaps(p.weight, p.gram, p.mask, p.pattern, SparseSwaps(max_swaps=2))
    assert limited.swaps.max() == 2
    assert not limited.optimal.all()


@settings(max_examples=60)
@given(problems(patterns=[pattern for pattern in PATTERNS if isinstance(pattern, NOfM)]), st.integers(1, 20))
def test_within_groups_no_row_ends_above_where_fewer_best_swaps_take_it(p, max_swaps):
    assume(p.group < p.weight.shape[1])  # a group that is the whole row is swept
    ended = sparseswaps(p.weight, p.gram, p.mask, p.pattern)
    stopped = sparseswaps(p.weight, p.gram, p.mask, p.pattern, SparseSwaps(max_swaps=max_swaps))
    energies = (p.weight.double() ** 2 * p.gram.double().diagonal()).sum(dim=1)
    # Beside huge weights that were swapped back the rounding errors of a row leave nothing to prove.
    assert (ended.optimal | (ended.loss_after <= 1e-12 * energies)).all()
    assert (ended.loss_after <= stopped.loss_after * (1 + 1e-9) + 1e-12 * energies).all()


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_degenerate_layers_end_finite_and_optimal(degenerate):
    p = problem(10, PATTERNS[2], rows=9, inputs=30, tokens=7, degenerate=degenerate)
    refined = sparseswaps(p.weight, p.gram, p.mask, p.pattern)
    assert refined.loss_after.isfinite().all()
    assert refined.optimal.all()


def test_bfloat16_weights_are_refined_as_the_float32_they_stand_for():
    p = problem(11, PATTERNS[2], rows=4, inputs=20, tokens=60)
    half = p.weight.bfloat16()
    torch.testing.assert_close(
        sparseswaps(half, p.gram, p.mask, p.pattern).mask, sparseswaps(half.float(), p.gram, p.mask, p.pattern).mask
    )


def test_the_reference_gives_the_same():
    p = problem(13, PATTERNS[2], rows=4, inputs=20, tokens=60)
    compiled = sparseswaps(p.weight, p.gram, p.mask, p.pattern, SparseSwaps(max_swaps=3))
    few = SparseSwaps(max_swaps=3)
    plain = sparseswaps(p.weight, p.gram, p.mask, p.pattern, few, compute=Compute(reference=True))
    torch.testing.assert_close(compiled.mask, plain.mask)


def other_gram(p, seed=0):
    """A Gram matrix of other tokens for the same layer."""
    x = torch.randn(40, len(p.gram), generator=torch.Generator().manual_seed(seed))
    return x.T @ x


@pytest.mark.parametrize("max_swaps", [1, 4, None])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("pattern", [PATTERNS[2], PATTERNS[5], PER_LAYER[1]], ids=lambda pattern: pattern.label)
def test_held_out_tokens_like_the_others_change_nothing(pattern, every, max_swaps):
    p = problem(15, pattern, rows=40, inputs=24, tokens=100)
    problem_ = (p.weight, p.gram, p.mask, pattern)
    plain = sparseswaps(*problem_, SparseSwaps(max_swaps=max_swaps or 10_000))
    stopped = sparseswaps(
        *problem_,
        SparseSwaps(max_swaps=max_swaps, early_stopping_interval=every),
        extra=ExtraInputs(held_out_gram=p.gram),
    )
    for name in ("mask", "swaps", "loss_before", "loss_after", "optimal"):
        torch.testing.assert_close(getattr(stopped, name), getattr(plain, name))
    assert plain.swaps.sum() > 0


@settings(max_examples=60)
@given(problems(), st.integers(1, 4), st.integers(0, 2**32))
def test_no_row_ends_worse_than_it_began_on_held_out_tokens(p, every, seed):
    held_out = other_gram(p, seed)
    settings_ = SparseSwaps(early_stopping_interval=every)
    refined = sparseswaps(p.weight, p.gram, p.mask, p.pattern, settings_, extra=ExtraInputs(held_out_gram=held_out))
    assert (row_losses(p.weight, held_out, refined.mask) <= row_losses(p.weight, held_out, p.mask)).all()
    assert (refined.loss_after <= refined.loss_before).all()
    torch.testing.assert_close(refined.mask.sum(dim=1), p.mask.sum(dim=1))


@pytest.mark.parametrize("every", [1, 3])
def test_a_row_goes_back_to_its_best_mask_when_its_held_out_loss_rises(every):
    p = problem(16, PATTERNS[2], rows=12, inputs=24, tokens=60)
    held_out = p.gram + 30 * other_gram(p)
    settings_ = SparseSwaps(early_stopping_interval=every)
    refined = sparseswaps(p.weight, p.gram, p.mask, p.pattern, settings_, extra=ExtraInputs(held_out_gram=held_out))
    w, G, H = p.weight.numpy(), p.gram.numpy(), held_out.numpy()
    for r in range(12):
        best = p.mask[r].numpy()
        swaps = 0
        while True:
            after = oracles.best_swaps(w[r], G, best, 24, every)
            if (after == best).all() or oracles.loss(w[r], H, after) > oracles.loss(w[r], H, best):
                break
            best, swaps = after, swaps + every
        np.testing.assert_array_equal(refined.mask[r].numpy(), best)
        assert swaps - every < refined.swaps[r] <= swaps
    assert 0 < refined.optimal.sum() < 12
    torch.testing.assert_close(refined.loss_after, row_losses(p.weight, p.gram, refined.mask))


def test_held_out_stopping_needs_held_out_tokens():
    p = problem(17, PATTERNS[2], rows=4, inputs=8, tokens=60)
    settings_ = SparseSwaps(early_stopping_interval=2)
    with pytest.raises(ParamsError, match="early_stopping_interval = 2"):
        sparseswaps(p.weight, p.gram, p.mask, p.pattern, settings_)
    with pytest.raises(NumericalError, match="gram: shape"):
        sparseswaps(p.weight, p.gram, p.mask, p.pattern, settings_, extra=ExtraInputs(held_out_gram=p.gram[:4, :4]))


@pytest.mark.parametrize("max_swaps", [3, None])
def test_damping_decides_on_the_damped_problem_and_reports_the_true_losses(max_swaps):
    p = problem(18, PATTERNS[2], rows=40, inputs=24, tokens=12)
    problem_ = (p.mask, p.pattern)
    refined = sparseswaps(p.weight, p.gram, *problem_, SparseSwaps(max_swaps=max_swaps, damping=0.1))
    G = p.gram.double()
    G += 0.1 * G.diagonal().mean() * torch.eye(24)
    of_damped = sparseswaps(p.weight, G.float(), *problem_, SparseSwaps(max_swaps=max_swaps))
    for name in ("mask", "swaps", "sweeps", "optimal"):
        assert torch.equal(getattr(refined, name), getattr(of_damped, name))
    torch.testing.assert_close(refined.loss_before, row_losses(p.weight, p.gram, p.mask))
    torch.testing.assert_close(refined.loss_after, row_losses(p.weight, p.gram, refined.mask))
    assert (refined.mask != sparseswaps(p.weight, p.gram, *problem_, SparseSwaps(max_swaps=max_swaps)).mask).any()


def test_damping_and_held_out_stopping_go_together():
    p = problem(19, PATTERNS[2], rows=40, inputs=24, tokens=12)
    settings_, held_out, told = SparseSwaps(damping=0.1, early_stopping_interval=2, max_swaps=5), other_gram(p), []
    refined = sparseswaps(
        p.weight,
        p.gram,
        p.mask,
        p.pattern,
        settings_,
        lambda *row: told.append(row),
        extra=ExtraInputs(held_out_gram=held_out),
    )
    assert (row_losses(p.weight, held_out, refined.mask) <= row_losses(p.weight, held_out, p.mask)).all()
    assert refined.swaps.max() == 5
    torch.testing.assert_close(refined.loss_after, row_losses(p.weight, p.gram, refined.mask))
    rows, before, after = map(sum, zip(*told, strict=True))
    noisy = damped(p.gram, 0.1)
    assert rows == 40
    assert before == pytest.approx(row_losses(p.weight, noisy, p.mask).sum().item())
    assert after == pytest.approx(row_losses(p.weight, noisy, refined.mask).sum().item())


def test_bad_input_is_refused_in_one_line():
    p = problem(14, PATTERNS[4], rows=4, inputs=8, tokens=60)
    wrong_counts = ~p.mask
    with pytest.raises(PatternError, match="groups do not keep exactly 1 of 4"):
        sparseswaps(p.weight, p.gram, wrong_counts, p.pattern)
    with pytest.raises(NumericalError, match="weight: NaN"):
        sparseswaps(p.weight * torch.nan, p.gram, p.mask, p.pattern)
    with pytest.raises(NumericalError, match="gram: NaN"):
        sparseswaps(p.weight, p.gram / 0, p.mask, p.pattern)
    with pytest.raises(NumericalError, match="gram: shape"):
        sparseswaps(p.weight, p.gram[:4, :4], p.mask, p.pattern)
