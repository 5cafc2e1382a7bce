"""Gram matrices of layer inputs: the sum of x x^T over tokens, all that pruning needs to know of the data.

One matrix for each distinct input, in float32, accumulated while the model runs its own forward pass, block by block;
on a GPU beside it.
"""

import warnings
from collections import ChainMap
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator

from prunelib.algebra.linalg import true_float32
from prunelib.calibration.beside import Beside
from prunelib.calibration.statistics import InputStatistics
from prunelib.errors import ModelError, NumericalError
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.layers import Layer, LayerIndex, watch_inputs
from prunelib.settings import Settings

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
    draw
        ``stream``: disjoint windows of the whole text; ``documents``: each somewhere in a document that is longer, as
        SparseGPT's and Wanda's scripts draw theirs from C4.
    propagation
        Whose inputs: ``dense``, those of the stock model, which serve every method; ``block``, those that a block gets
        from the pruned blocks before it; ``sub_block``, also those that a layer gets from the pruned layers before it
        in its block. These two belong to one cell, so its refinement finds them.
    least_tokens
        An expert that fewer tokens are routed to is pruned as if its inputs were independent and of one size.
    shards
        Parts of the windows that are calibrated each alone, perhaps at once (:mod:`prunelib.engine`), and added up in
        order: part of the experiment like ``batch``.
    """

    text: str
    samples: int = Field(ge=1)
    length: int = Field(ge=2)
    batch: int = Field(ge=1)
    held_out_samples: int = Field(default=0, ge=0)
    draw: Literal["stream", "documents"] = "stream"
    propagation: Literal["dense", "block", "sub_block"] = "dense"
    least_tokens: int = Field(default=64, ge=1)
    shards: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _held_out_windows_are_apart(self) -> "CalibrationSettings":
        if self.draw == "documents" and self.held_out_samples:
            raise ValueError(
                f"draw: documents may draw a document twice, so that the windows of held_out_samples = "
                f"{self.held_out_samples} cannot be kept apart; use draw: stream"
            )
        return self

    @model_validator(mode="after")
    def _every_shard_has_a_window(self) -> "CalibrationSettings":
        if self.shards > self.samples:
            raise ValueError(f"shards must be at most samples: {self.shards} > {self.samples}")
        return self


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
    total = GramSum(inputs.shape[-1], inputs.device)
    total.add(inputs)
    return total.symmetric("inputs")


def in_batches(parts: Iterable[torch.Tensor], batch: int) -> tuple[list[torch.Tensor], list[range]]:
    """Windows (samples, length) as batches, and the numbers of the batches of each part that has windows."""
    batches: list[torch.Tensor] = []
    numbers = []
    for windows in parts:
        if len(windows):
            first = len(batches)
            batches += windows.split(batch)
            numbers.append(range(first, len(batches)))
    return batches, numbers


def accumulate_grams(
    forward: BlockwiseForward,
    index: LayerIndex,
    parts: Sequence[Sequence[int]],
    *,
    gram_bytes: int,
    finished: Container[int] = (),
    on_batch: Callable[[int], None] = lambda _batch: None,
) -> Iterator[tuple[int, list[dict[str, InputStatistics]]]]:
    """Take batches of token windows through a model, and yield the Gram matrices of its layers block by block.

    Batches run through a block several times where its Gram matrices do not fit the budget together; that changes no
    bit of the result.

    Parameters
    ----------
    forward
        At the block to begin with.
    parts
        The numbers of the batches whose tokens are summed together, for each sum.
    gram_bytes
        Memory on the device for Gram matrices.
    finished
        Blocks whose Gram matrices are not needed: batches run through them, and nothing is yielded.
    on_batch
        Called with the number of each batch that leaves a block.

    Yields
    ------
    tuple
        Block number, and for each part its inputs' statistics over all tokens, on the CPU, by :attr:`Layer.gram`; the
        matrices are exactly symmetric. ``forward`` is at the next block then.

    Raises
    ------
    ModelError
        If a layer did not see every token exactly once.
    NumericalError
        Naming the layer whose inputs are NaN, infinite or too large for float32.
    """
    last = max((block for block in range(index.blocks) if block not in finished), default=-1)

    def keep(batch: int, states: torch.Tensor) -> None:
        forward.keep(batch, states)
        on_batch(batch)

    while (block := forward.block) <= last:
        *first_passes, last_pass = plan_passes(() if block in finished else index.readers(block), gram_bytes)
        with forward.resident():
            statistics = [accumulate_pass(forward, layers, parts) for layers in first_passes]
            statistics.append(accumulate_pass(forward, last_pass, parts, keep))
        forward.advance()
        if block not in finished:
            yield block, [dict(ChainMap(*of_part)) for of_part in zip(*statistics, strict=True)]


def accumulate_pass(
    forward: BlockwiseForward,
    layers: Sequence[Layer],
    parts: Sequence[Sequence[int]],
    on_states: Callable[[int, torch.Tensor], None] = lambda _batch, _states: None,
) -> list[dict[str, InputStatistics]]:
    """Run batches through the next block once, and return the statistics of what some layers read, for each part.

    Parameters
    ----------
    layers
        Of the next block, each with an input of its own (:meth:`prunelib.model.layers.LayerIndex.readers`).
    parts
        The numbers of the batches whose tokens are summed together.
    on_states
        Called with each batch's number and the states that the block leaves of it.

    Raises
    ------
    ModelError, NumericalError
        As :func:`accumulate_grams`.
    """
    statistics = []
    for batches in parts:
        sums = {layer.name: GramSum(layer.inputs, forward.device) for layer in layers}
        with Beside(forward.device) as beside:
            for batch in batches:
                on_states(batch, _run_watched(forward, batch, layers, sums, beside))
            beside.finish()
        tokens = sum(forward.batches[batch].numel() for batch in batches)
        statistics.append({layer.name: sums[layer.name].complete(layer, tokens) for layer in layers})
    return statistics


def _run_watched(
    forward: BlockwiseForward, batch: int, layers: Sequence[Layer], sums: Mapping[str, "GramSum"], beside: Beside
) -> torch.Tensor:
    """Run a batch through the next block, adding up what layers read."""

    def receive(name: str, inputs: torch.Tensor) -> None:
        beside.read(name, inputs, sums[name].add)

    with watch_inputs(forward.model, layers, receive):
        return forward.run(batch)


def supported(layer: Layer, statistics: InputStatistics, least_tokens: int) -> InputStatistics:
    """The statistics, or where an expert has seen too few tokens, those of independent inputs of one size."""
    if layer.fused is None or statistics.tokens >= least_tokens:
        return statistics
    return statistics._replace(gram=torch.eye(layer.inputs), mean=torch.zeros(layer.inputs))


def warn_of_few(seen: Mapping[str, int], least_tokens: int) -> None:
    """Warn where inputs of experts, by name, saw too few tokens."""
    if few := [name for name, tokens in seen.items() if tokens < least_tokens]:
        warnings.warn(
            f"{len(few)} of {len(seen)} inputs of experts saw fewer than calibration.least_tokens = {least_tokens} "
            f"tokens, first {few[0]} ({seen[few[0]]}): pruned as if they were independent",
            stacklevel=4,
        )


def plan_passes(layers: Iterable[Layer], budget_bytes: int) -> list[list[Layer]]:
    """The layers of a block whose inputs have Gram matrices of their own, in passes that fit the budget.

    A pass has at least one layer; where there are none, there is one pass.
    """
    passes: list[list[Layer]] = [[]]
    free = budget_bytes
    for layer in layers:
        needed = layer.inputs**2 * _ENTRY_BYTES
        if passes[-1] and needed > free:
            passes.append([])
            free = budget_bytes
        passes[-1].append(layer)
        free -= needed
    return passes


class GramSum:
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
        with true_float32():
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

    def complete(self, layer: Layer, tokens: int) -> InputStatistics:
        """The whole matrix and the mean on the CPU, once every token has been seen; experts may have seen fewer."""
        if self.tokens != tokens and layer.fused is None:
            raise ModelError(
                f"{layer.name}: saw {self.tokens} of {tokens} tokens; it cannot be calibrated as a dense layer"
            )
        mean = (self.total / max(self.tokens, 1)).float()
        return InputStatistics(self.symmetric(layer.name).cpu(), mean.cpu(), self.tokens)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add a product to a float32 total; matrix units multiply halves exactly and add up in float32."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right, out_dtype=total.dtype)
