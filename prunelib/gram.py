"""Gram matrices of layer inputs: the sum of x x^T over tokens, all that pruning needs to know of the data.

One matrix for each distinct input, in float32, accumulated while the model runs its own forward pass.
"""

import contextlib
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from prunelib.errors import ModelError, NumericalError
from prunelib.layers import LayerIndex, watch_inputs
from prunelib.settings import Settings
from prunelib.statistics import InputStatistics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PANELS = {"cpu": 256, "cuda": 1024}  # columns: half the work of the full product, 1.5 times as fast on a processor
_CHUNKS = {"cpu": 256, "cuda": 8192}  # tokens: on a processor longer sums are split over threads, which changes bits
_HALVES = (torch.bfloat16, torch.float16)
_ENTRY_BYTES = torch.float32.itemsize


class CalibrationSettings(Settings):
    """Which data the Gram matrices describe.

    Attributes
    ----------
    text
        Name of the text that the windows are drawn from.
    samples, length
        Number of windows, and tokens in each.
    batch
        Windows a forward pass: part of the experiment, since it decides the order of summation.
    held_out_samples
        Further windows of the same draw, with Gram matrices of their own, for refiners that stop on them.
    """

    text: str
    samples: int = Field(ge=1)
    length: int = Field(ge=2)
    batch: int = Field(ge=1)
    held_out_samples: int = Field(default=0, ge=0)


def gram_matrix(inputs: torch.Tensor) -> torch.Tensor:
    """The Gram matrix of a layer's inputs.

    Parameters
    ----------
    inputs
        (..., d), any floating dtype: one input a token.

    Returns
    -------
    torch.Tensor
        (d, d) float32, exactly symmetric: the sum over tokens of x x^T.

    Raises
    ------
    NumericalError
        If an input is NaN or infinite, or the sum overflows float32.
    """
    total = _Sum(inputs.shape[-1], inputs.device)
    total.add(inputs)
    return total.symmetric("inputs")


def accumulate_grams(
    model: "PreTrainedModel",
    index: LayerIndex,
    windows: torch.Tensor,
    *,
    batch: int,
    budget_bytes: int,
    on_windows: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, dict[str, InputStatistics]]]:
    """Run a model over token windows and yield the Gram matrices of its layers, block by block.

    Each pass over the windows serves as many consecutive blocks as the budget allows, at least one, and stops the
    forward after the last of them. The number of passes changes no bit of the result.

    Parameters
    ----------
    windows
        (samples, length) integer token ids.
    batch
        Windows a forward pass; the last may have fewer.
    budget_bytes
        Memory for Gram matrices on the model's device.
    on_windows
        Called after every batch with the number of its windows; over all passes, each window counts once a pass
        (:func:`plan_passes`).

    Yields
    ------
    tuple
        Block number, and its inputs' statistics over all tokens of all windows, on the CPU, by :attr:`Layer.gram`; the
        matrices are exactly symmetric.

    Raises
    ------
    ModelError
        If a layer did not see every token exactly once.
    NumericalError
        Naming the layer whose inputs are NaN, infinite or too large for float32.
    """
    for blocks in plan_passes(index, budget_bytes):
        sums = {name: _Sum(size, model.device) for block in blocks for name, size in index.grams(block).items()}
        last_block = model.get_submodule(f"{index.block_list}.{blocks[-1]}")
        for tokens in windows.split(batch):
            _run_until(last_block, model, tokens, sums)
            if on_windows:
                on_windows(len(tokens))
        for block in blocks:
            yield block, {name: sums.pop(name).complete(name, windows.numel()) for name in index.grams(block)}


def accumulate_apart(
    model: "PreTrainedModel",
    index: LayerIndex,
    windows: torch.Tensor,
    held_out: torch.Tensor,
    *,
    batch: int,
    budget_bytes: int,
    on_windows: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, dict[str, InputStatistics], dict[str, InputStatistics]]]:
    """As :func:`accumulate_grams`, with the statistics of held-out windows beside them: none where there are no such.

    ``budget_bytes`` is that of each of the two.
    """
    settings = {"batch": batch, "budget_bytes": budget_bytes, "on_windows": on_windows}
    apart = accumulate_grams(model, index, held_out, **settings) if len(held_out) else repeat((0, {}))  # type: ignore[arg-type]
    for (block, inputs), (_, inputs_apart) in zip(
        accumulate_grams(model, index, windows, **settings),  # type: ignore[arg-type]
        apart,
        strict=False,
    ):
        yield block, inputs, inputs_apart


class _Stop(Exception):  # noqa: N818 - control flow, no error
    """Leaves the forward once the last block of a pass has run; private, so that it hides no real fault."""


class _Sum:
    """A Gram matrix while it accumulates: the upper triangle is valid, the lower is not."""

    def __init__(self, inputs: int, device: torch.device) -> None:
        self.gram = torch.zeros(inputs, inputs, dtype=torch.float32, device=device)
        self.total = torch.zeros(inputs, dtype=torch.float64, device=device)
        self.tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Add x^T x of inputs (..., d), computing the panels of the upper triangle only."""
        x = inputs.reshape(-1, inputs.shape[-1])  # (tokens, d)
        self.tokens += len(x)
        self.total += x.sum(dim=0, dtype=torch.float64)
        halves = x.is_cuda and x.dtype in _HALVES
        panel = _PANELS[x.device.type]
        with _ieee_float32():
            for chunk in (x if halves else x.float()).split(_CHUNKS[x.device.type]):
                for start in range(0, x.shape[1], panel):
                    left, right = chunk[:, start : start + panel].T, chunk[:, start:]
                    _add_product(self.gram[start : start + panel, start:], left, right)

    def symmetric(self, name: str) -> torch.Tensor:
        """The whole matrix, the upper triangle mirrored in place."""
        self.gram.triu_()
        self.gram += self.gram.triu(1).T
        if not self.gram.isfinite().all():
            raise NumericalError(
                f"Gram matrix of {name}: NaN or infinity, expected finite inputs and squares in float32"
            )
        return self.gram

    def complete(self, name: str, tokens: int) -> InputStatistics:
        """The whole matrix and the mean on the CPU, once every token has been seen."""
        if self.tokens != tokens:
            raise ModelError(f"{name}: saw {self.tokens} of {tokens} tokens; it cannot be calibrated as a dense layer")
        return InputStatistics(self.symmetric(name).cpu(), (self.total / tokens).float().cpu())


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add a product to a float32 total; matrix units multiply halves exactly and add up in float32."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right, out_dtype=total.dtype)


def plan_passes(index: LayerIndex, budget_bytes: int) -> list[list[int]]:
    """Consecutive blocks whose Gram matrices fit the budget together, at least one a pass."""
    passes: list[list[int]] = []
    free = 0
    for block in range(index.blocks):
        size = sum(inputs**2 for inputs in index.grams(block).values()) * _ENTRY_BYTES
        if not passes or size > free:
            passes.append([])
            free = budget_bytes
        passes[-1].append(block)
        free -= size
    return passes


@torch.no_grad()
def _run_until(
    last_block: torch.nn.Module, model: "PreTrainedModel", tokens: torch.Tensor, sums: dict[str, _Sum]
) -> None:
    """Run the model over tokens (batch, length) up to the end of ``last_block``, adding up what the layers read."""

    def stop(*_: Any) -> None:
        raise _Stop

    handle = last_block.register_forward_hook(stop)
    try:
        with watch_inputs(model, sums, lambda name, inputs: sums[name].add(inputs)), contextlib.suppress(_Stop):
            model(input_ids=tokens.to(model.device, torch.long), use_cache=False)
    finally:
        handle.remove()


@contextlib.contextmanager
def _ieee_float32() -> Iterator[None]:
    """Multiply in true float32, without TF32 (GPU) or bfloat16 (CPU), whatever the global setting."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
