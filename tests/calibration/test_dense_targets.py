"""Corrections of weights for changed inputs, against the formula on explicit inputs in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunelib.calibration.dense_targets import DAMPING, add_difference, corrected, correction


def inputs_of(tokens, width, seed, dead):
    """Inputs of a layer in the dense and in the pruned model, (tokens, width); the last of these are dead."""
    generator = torch.Generator().manual_seed(seed)
    dense, change = torch.randn(2, tokens, width, generator=generator)
    pruned = dense + 0.3 * change
    pruned[:, width - min(dead, width) :] = 0
    return dense, pruned


def by_inputs(dense, pruned, share):
    """The correction by sums over all tokens."""
    difference = torch.zeros(dense.shape[1], dense.shape[1])
    add_difference(difference, dense, pruned)
    return correction(pruned.T @ pruned, difference, share)


@given(
    st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.sampled_from([0.25, 0.5, 1.0]), st.integers(0, 10**6)
)
def test_it_is_that_of_the_formula(tokens, width, dead, share, seed):
    dense, pruned = inputs_of(tokens, width, seed, dead)
    x_d, x_s = dense.double().T, pruned.double().T
    gram = x_s @ x_s.T
    expected = torch.zeros(width, width, dtype=torch.float64)
    if gram.any():
        damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(width, dtype=torch.float64)
        expected = share * (x_d - x_s) @ x_s.T @ torch.linalg.inv(damped)
    torch.testing.assert_close(by_inputs(dense, pruned, share).double(), expected, rtol=1e-3, atol=1e-3)


def test_with_a_share_of_one_outputs_are_as_close_to_the_dense_ones_as_damping_allows():
    dense, _ = inputs_of(tokens=60, width=8, seed=1, dead=0)
    weight, mixing = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(2))
    pruned = dense + 0.1 * dense @ mixing
    moved = corrected("mine", weight, by_inputs(dense, pruned, 1.0)).double()
    x_d, x_s, weight = dense.double().T, pruned.double().T, weight.double()
    damping = DAMPING * (x_s @ x_s.T).diagonal().mean()
    gradient = (moved @ x_s - weight @ x_d) @ x_s.T + damping * (moved - weight)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-3)
    before, after = ((each @ x_s - weight @ x_d).square().sum() for each in (weight, moved))
    assert after < 0.01 * before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_unchanged_inputs_change_no_weight(dtype):
    dense, _ = inputs_of(tokens=10, width=4, seed=0, dead=0)
    weight = torch.randn(3, 4).to(dtype)
    assert torch.equal(corrected("mine", weight, by_inputs(dense, dense, 1.0)), weight)


def test_dead_inputs_get_no_weight_and_none_is_divided_by_zero():
    dense, pruned = inputs_of(tokens=30, width=6, seed=3, dead=2)
    found = by_inputs(dense, pruned, 1.0)
    assert not found[:, -2:].any()
    assert found[-2:, :-2].any()  # what they had is made up for by the others
    assert not by_inputs(dense, torch.zeros_like(dense), 1.0).any()


@pytest.mark.parametrize("width", [1, 300, 513])
def test_the_number_of_threads_changes_no_bit(width):
    dense, pruned = inputs_of(tokens=700, width=width, seed=0, dead=0)
    weight = torch.randn(37, width, generator=torch.Generator().manual_seed(1))
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        gram = pruned.T @ pruned if not results else results[0][0]
        difference = torch.zeros(width, width)
        add_difference(difference, dense, pruned)
        results.append((gram, difference, corrected("mine", weight, correction(gram, difference, 0.5))))
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for result in results for one, other in zip(results[0], result, strict=True))
