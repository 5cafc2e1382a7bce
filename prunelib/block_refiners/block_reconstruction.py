"""Block reconstruction: train the kept weights of a decoder block to return what the dense block returns.

The mask stays. The loss is the error of the block's hidden states over calibration windows; there are no labels and no
training from end to end. Reconstruction of blocks instead of matrices is that of BRECQ (Li et al., 2102.05426, for
quantised weights); 2510.14444 measures it for pruned ones.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from operator import methodcaller
from typing import Literal, cast

import numpy as np
import torch
from pydantic import Field

from prunelib.methods.block_contract import BlockProblem, BlockRefiner, BlockSettings, Reconstructed, Target
from prunelib.settings import Count

_BETAS = (0.9, 0.95)
_FLOOR = 1e-3  # of the mean: the least by which a token's error is divided


class BlockReconstruction(BlockSettings):
    """The settings of block reconstruction.

    Attributes
    ----------
    epochs
        How often it trains on all windows but those held out.
    learning_rate
        Largest step of Adam, relative to the root mean square of a matrix's kept weights.
    batch
        Windows per step.
    warmup
        Number of steps over which the rate rises to ``learning_rate``.
    decay
        How the rate falls afterwards: in a straight line to 0, as half a cosine to 0, or not at all.
    loss
        What a token's squared error is divided by: the mean ``update`` of a block over all tokens (``plain``), the
        token's own update (``update``), or the squared norm of its state (``state``).
    held_out
        Share of the windows that it does not train on: the epoch with the lowest error on these is kept. 0: on those
        trained on.
    """

    method: Literal["block_reconstruction"] = "block_reconstruction"
    epochs: int = Field(default=4, ge=1, le=10**4)
    learning_rate: float = Field(default=0.01, gt=0, le=10)
    batch: Count = 2
    warmup: int = Field(default=8, ge=0, le=10**9)
    decay: Literal["linear", "cosine", "none"] = "linear"
    loss: Literal["plain", "update", "state"] = "plain"
    held_out: float = Field(default=0.125, ge=0, lt=1)

    def gradients(self, samples: int) -> int:
        """Return how many windows' gradients a block takes, given the number of calibration windows."""
        return self.epochs * self.trained(samples)

    def trained(self, samples: int) -> int:
        """Return how many of the calibration windows are trained on: the first."""
        return samples - int(samples * Fraction(str(self.held_out)))  # in exact fractions: 29% of 100 is 29


_DEFAULT = BlockReconstruction()


def reconstruct(
    problem: BlockProblem,
    settings: BlockReconstruction = _DEFAULT,
    on_window: Callable[[], None] = lambda: None,
) -> Reconstructed:
    """Train the kept weights by Adam in float32, and keep those of the best epoch."""
    workers, every = problem.workers, problem.windows
    trained = every[: settings.trained(len(every))]
    measured = every[len(trained) :] or trained
    loss = _Loss(problem, settings.loss)
    weights = [_Weight(problem, name, settings.learning_rate) for name in problem.parameters]
    for weight in weights:
        weight.show(rounded=True)
        weight.remember()
    before = best = loss.mean(measured)
    kept_epoch = step = 0
    steps = settings.epochs * -(-len(trained) // settings.batch)
    for epoch in range(1, settings.epochs + 1):
        for weight in weights:
            weight.show()
        for windows in _batches(trained, settings.batch, epoch):
            for gradient in workers.map(loss.gradient, windows):
                for weight, part in zip(weights, gradient, strict=True):
                    weight.add_gradient(part)
                on_window()
            list(workers.map(methodcaller("step", _rate(step, steps, settings)), weights))  # each on one thread
            step += 1
        for weight in weights:
            weight.show(rounded=True)
        if (error := loss.mean(measured)) < best:
            best, kept_epoch = error, epoch
            for weight in weights:
                weight.remember()
    for weight in weights:
        weight.restore()
    return Reconstructed(before, best, kept_epoch)


class _Loss:
    """The error of a block's states over windows, and its gradients."""

    def __init__(self, problem: BlockProblem, kind: Literal["plain", "update", "state"]) -> None:
        self._problem, self._kind = problem, kind
        self._parameters = list(problem.parameters.values())
        sizes = [self._size(problem.target(window)) for window in problem.windows]
        self._mean = sum(float(size.double().sum()) for size in sizes) / sum(size.numel() for size in sizes) or 1.0

    def mean(self, windows: Sequence[int]) -> float:
        """Return the mean error of the tokens of some windows."""
        found = list(self._problem.workers.map(self._without_gradient, windows))
        return sum(error for error, _ in found) / sum(tokens for _, tokens in found)

    @torch.enable_grad()
    def gradient(self, window: int) -> Sequence[torch.Tensor]:
        """Return the gradient of a window's error for each parameter, in the model's dtype."""
        error, _ = self._error(window)
        return torch.autograd.grad(error, self._parameters, allow_unused=True, materialize_grads=True)

    @torch.no_grad()
    def _without_gradient(self, window: int) -> tuple[float, int]:
        error, tokens = self._error(window)
        return float(error), tokens

    def _error(self, window: int) -> tuple[torch.Tensor, int]:
        """Return the summed error of a window's tokens, and their number."""
        target = self._problem.target(window)
        errors = (_precise(self._problem.states(window)) - _precise(target.states)).square().sum(dim=-1)
        if self._kind == "plain":
            return errors.sum() / self._mean, errors.numel()
        return (errors / self._size(target).clamp_min(_FLOOR * self._mean)).sum(), errors.numel()

    def _size(self, target: Target) -> torch.Tensor:
        return _precise(target.states).square().sum(dim=-1) if self._kind == "state" else target.update


class _Weight:
    """The kept weights of a parameter, a vector in float32 or float64 that is trained beside the parameter."""

    def __init__(self, problem: BlockProblem, name: str, learning_rate: float) -> None:
        self._parameter, self._stored = problem.parameters[name], problem.stored[name]
        self._kept = problem.kept[name].flatten().nonzero().squeeze(dim=1)  # places in the flat parameter
        self._trained = _precise(self._parameter.detach().flatten()[self._kept])
        self._largest_rate = learning_rate * _root_mean_square(self._trained)
        self._gradient = self._trained.grad = torch.zeros_like(self._trained)
        self._adam = torch.optim.Adam([self._trained], betas=_BETAS, fused=True)

    def add_gradient(self, gradient: torch.Tensor) -> None:
        """Add the gradient of a window, of the parameter's shape."""
        self._gradient += gradient.flatten().index_select(0, self._kept)

    def step(self, rate: float) -> None:
        """Take a step of Adam, at a share of the largest rate, and show the end."""
        self._adam.param_groups[0]["lr"] = self._largest_rate * rate
        self._adam.step()
        self._gradient.zero_()
        self.show()

    def show(self, *, rounded: bool = False) -> None:
        """Copy the weights into the model, on request as they are stored."""
        self._copy(self._trained.to(self._stored) if rounded else self._trained)

    def remember(self) -> None:
        """Remember the weights as they are stored."""
        self._best = self._trained.to(self._stored, copy=True)

    def restore(self) -> None:
        """Copy the remembered weights into the model."""
        self._copy(self._best)

    def _copy(self, values: torch.Tensor) -> None:
        parameter = self._parameter.data
        flat = parameter.flatten().scatter_(0, self._kept, values.to(parameter.dtype))
        parameter.copy_(flat.view_as(parameter))  # flat is a copy if the parameter is not contiguous


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32, or in float64 if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _root_mean_square(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt()) if len(values) else 0.0


def _batches(windows: Sequence[int], size: int, epoch: int) -> Iterator[list[int]]:
    """Yield the windows of each step of an epoch, in an order that only the epoch decides."""
    order = np.argsort(np.random.Philox(epoch).random_raw(len(windows)), kind="stable")
    for first in range(0, len(order), size):
        yield [windows[number] for number in order[first : first + size]]


def _rate(step: int, steps: int, settings: BlockReconstruction) -> float:
    """Return the rate of a step, counted from 0, as a share of the largest."""
    warm = min(1.0, (step + 1) / (settings.warmup + 1))
    left = 1 - step / steps
    if settings.decay == "linear":
        return warm * left
    if settings.decay == "cosine":
        return warm * (1 - cast("float", np.cos(np.pi * left))) / 2
    return warm


METHOD = BlockRefiner(
    settings=BlockReconstruction,
    summary="train the kept weights of each decoder block to return what the dense block returns",
    source="after Li et al., [2102.05426](https://arxiv.org/abs/2102.05426)",
    reconstruct=reconstruct,
    weight_bytes=24,
)
