"""Block reconstruction of one block, against finite differences, closed forms and plain formulas."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelib.block_refiners.block_reconstruction import BlockReconstruction, _Loss, reconstruct
from prunelib.methods.block_contract import BlockProblem, Target
from prunelib.runtime.threads import Workers

ALONE = Workers(1)


class Linear(torch.nn.Module):
    """A block without a non-linearity: states X W^T."""

    def __init__(self, weight):
        super().__init__()
        self.first = torch.nn.Parameter(weight)

    def forward(self, states):
        return states @ self.first.T


class Gated(torch.nn.Module):
    """A block like a gated MLP with a residual, and a matrix that is never used."""

    def __init__(self, draw, hidden, inner, dtype):
        super().__init__()
        shapes = {"first": (inner, hidden), "gate": (inner, hidden), "second": (hidden, inner), "unused": (2, 3)}
        for name, shape in shapes.items():
            value = 0.5 * torch.randn(*shape, generator=draw, dtype=torch.float64)
            self.register_parameter(name, torch.nn.Parameter(value.to(dtype)))

    def forward(self, states):
        inner = torch.nn.functional.silu(states @ self.gate.T) * (states @ self.first.T)
        return states + inner @ self.second.T


def problem_of(block, inputs, targets, kept, stored=None, workers=ALONE):
    """The problem of a block that reads ``inputs`` (windows, length, hidden), pruned where not ``kept``."""
    parameters = dict(block.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.masked_fill_(~kept[name], 0)
    return BlockProblem(
        parameters=parameters,
        kept=kept,
        stored={name: stored or parameter.dtype for name, parameter in parameters.items()},
        windows=range(len(inputs)),
        states=lambda window: block(inputs[window : window + 1]),
        target=lambda window: targets[window],
        workers=workers,
    )


def gated(seed=0, hidden=6, inner=10, windows=5, length=7, sparsity=0.5, dtype=torch.float32, **arguments):
    draw = torch.Generator().manual_seed(seed)
    dense = Gated(draw, hidden, inner, dtype)
    inputs = torch.randn(windows, length, hidden, generator=draw, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        states = dense(inputs)
    targets = [
        Target(after[None], (after - before).float().square().sum(dim=-1)[None])
        for before, after in zip(inputs, states, strict=True)
    ]
    kept = {
        name: torch.rand(parameter.shape, generator=draw) >= sparsity for name, parameter in dense.named_parameters()
    }
    return problem_of(copy.deepcopy(dense), inputs, targets, kept, **arguments)


def plain_error(problem, windows, loss="plain"):
    """The mean error of tokens as the documentation defines it, in float64."""
    every = [problem.target(window) for window in problem.windows]
    sizes = {
        "plain": [target.update for target in every],
        "update": [target.update for target in every],
        "state": [target.states.square().sum(dim=-1) for target in every],
    }[loss]
    mean = float(torch.cat(sizes).double().mean())
    errors = []
    for window in windows:
        error = (problem.states(window) - problem.target(window).states).detach().double().square().sum(dim=-1)
        errors.append(error / (mean if loss == "plain" else sizes[window].double().clamp_min(1e-3 * mean)))
    return float(torch.cat(errors).mean())


@pytest.mark.parametrize("loss", ["plain", "update", "state"])
def test_the_gradient_is_that_of_finite_differences(loss):
    problem = gated(dtype=torch.float64)
    of_block = _Loss(problem, loss)
    found = dict(zip(problem.parameters, of_block.gradient(1), strict=True))
    step = 1e-6
    for name, parameter in problem.parameters.items():
        for position in range(0, parameter.numel(), 7):
            weights = parameter.data.view(-1)
            value, errors = float(weights[position]), []
            for shifted in (value + step, value - step):
                weights[position] = shifted
                errors.append(7 * of_block.mean([1]))
            weights[position] = value
            expected = (errors[0] - errors[1]) / (2 * step)
            assert float(found[name].view(-1)[position]) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("loss", ["plain", "update", "state"])
def test_the_errors_are_those_of_the_held_out_windows(loss):
    problem = gated(windows=6)
    chosen = BlockReconstruction(loss=loss, held_out=0.34, epochs=3)
    before = plain_error(problem, [4, 5], loss)
    found = reconstruct(problem, chosen)
    assert found.error_before == pytest.approx(before, rel=1e-5)
    assert found.error_after == pytest.approx(plain_error(problem, [4, 5], loss), rel=1e-5)
    assert found.error_after < found.error_before


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    windows=st.integers(1, 5),
    length=st.integers(1, 4),
    sparsity=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    batch=st.integers(1, 7),
    rate=st.sampled_from([1e-6, 0.03, 1.0, 10.0]),
    held_out=st.sampled_from([0.0, 0.2, 0.9]),
    decay=st.sampled_from(["linear", "cosine", "none"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_no_error_rises_and_pruned_weights_stay_zero(
    seed, windows, length, sparsity, batch, rate, held_out, decay, dtype
):
    problem = gated(seed, 3, 4, windows, length, sparsity, dtype)
    before = {name: parameter.detach().clone() for name, parameter in problem.parameters.items()}
    chosen = BlockReconstruction(
        epochs=2, learning_rate=rate, batch=batch, held_out=held_out, decay=decay, warmup=batch % 3
    )
    trained = []
    found = reconstruct(problem, chosen, lambda: trained.append(1))
    assert len(trained) == chosen.gradients(windows)
    assert found.error_after <= found.error_before
    if not found.epoch:
        assert found.error_after == found.error_before
    for name, parameter in problem.parameters.items():
        pruned = parameter[~problem.kept[name]]
        assert not pruned.any()
        assert not pruned.signbit().any()
        assert parameter.isfinite().all()
        if not found.epoch or name == "unused":
            assert torch.equal(parameter, before[name])


def test_a_linear_block_reaches_least_squares():
    draw = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(3, 5, generator=draw), torch.randn(4, 20, 5, generator=draw)
    states = inputs @ weight.T
    targets = [Target(after[None], after.square().sum(dim=-1)[None]) for after in states]
    kept = {"first": torch.rand(3, 5, generator=draw) < 0.6}
    problem = problem_of(Linear(weight.clone()), inputs, targets, kept)
    reconstruct(problem, BlockReconstruction(epochs=400, learning_rate=0.05, batch=4, held_out=0))
    tokens, outputs = inputs.flatten(0, 1).double(), states.flatten(0, 1).double()
    for row, mask in enumerate(kept["first"]):
        best = torch.linalg.lstsq(tokens[:, mask], outputs[:, row, None]).solution[:, 0]
        assert torch.allclose(problem.parameters["first"][row, mask].double(), best, atol=1e-3)


def test_the_number_of_threads_changes_no_bit():
    found = []
    for threads in (1, 2, 3):
        with Workers(threads) as workers:
            problem = gated(hidden=48, inner=96, windows=9, length=40, workers=workers)
            measured = reconstruct(problem, BlockReconstruction(epochs=2, batch=4))
        found.append((measured, problem.parameters))
    for measured, parameters in found[1:]:
        assert measured == found[0][0]
        assert all(torch.equal(parameters[name], found[0][1][name]) for name in parameters)


def test_weights_are_rounded_as_they_are_stored():
    problem = gated(stored=torch.bfloat16)
    found = reconstruct(problem, BlockReconstruction(held_out=0))
    for parameter in problem.parameters.values():
        assert torch.equal(parameter, parameter.bfloat16().float())
    assert found.error_after == pytest.approx(plain_error(problem, problem.windows), rel=1e-5)


def test_errors_that_are_no_number_are_never_the_best():
    problem = gated()
    before = {name: parameter.detach().clone() for name, parameter in problem.parameters.items()}
    states, calls = problem.states, []

    def fails_later(window):
        calls.append(window)
        return states(window) * (float("nan") if len(calls) > len(problem.windows) else 1.0)

    problem = BlockProblem(**{**problem.__dict__, "states": fails_later})
    found = reconstruct(problem, BlockReconstruction(held_out=0))
    assert found.epoch == 0
    assert all(torch.equal(parameter, before[name]) for name, parameter in problem.parameters.items())


@pytest.mark.parametrize(("held_out", "trained"), [(0, 8), (0.1, 8), (0.125, 7), (0.99, 1)])
def test_at_least_one_window_is_trained_on(held_out, trained):
    assert BlockReconstruction(held_out=held_out).trained(8) == trained


def test_more_epochs_lower_the_error():
    errors = [
        reconstruct(gated(windows=8, length=30), BlockReconstruction(epochs=epochs, held_out=0)).error_after
        for epochs in (1, 4, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == len(errors)


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("decay", ["linear", "cosine", "none"])
def test_a_linear_block_takes_the_steps_of_adam(decay, warmup):
    """Adam as its authors write it, with its rate relative to the weights' root mean square, in numpy."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 5, generator=draw, dtype=torch.float64)
    inputs = torch.randn(2, 20, 5, generator=draw, dtype=torch.float64)
    states = inputs @ weight.T
    targets = [Target(after[None], after.square().sum(dim=-1)[None]) for after in states]
    kept = {"first": torch.rand(3, 5, generator=draw) < 0.6}
    settings_ = BlockReconstruction(epochs=10, learning_rate=1e-3, batch=2, held_out=0, warmup=warmup, decay=decay)
    problem = problem_of(Linear(weight.clone()), inputs, targets, kept)
    assert reconstruct(problem, settings_).epoch == 10
    m, X, Y = kept["first"].numpy(), inputs.flatten(0, 1).numpy(), states.flatten(0, 1).numpy()
    W = np.where(m, weight.numpy(), 0)
    largest, energy = 1e-3 * np.sqrt(np.mean(W[m] ** 2)), np.mean((Y**2).sum(axis=1))
    first, second = np.zeros_like(W), np.zeros_like(W)
    for step in range(10):
        gradient = np.where(m, 2 * (X @ W.T - Y).T @ X / energy, 0)
        first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
        shares = {"linear": 1 - step / 10, "cosine": (1 + np.cos(np.pi * step / 10)) / 2, "none": 1.0}
        rate = largest * min(1, (step + 1) / (warmup + 1)) * shares[decay]
        unbiased = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.95 ** (step + 1))
        W = W - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    np.testing.assert_allclose(problem.parameters["first"].detach().numpy(), W, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("percent", range(100))
def test_the_held_out_share_is_exact(percent):
    assert BlockReconstruction(held_out=percent / 100).trained(100) == 100 - percent
