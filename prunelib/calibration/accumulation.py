"""Gram matrices of all layers of a model, one for each distinct input, block by block.

They accumulate in float32 during the model's own forward pass, on a GPU overlapped with it on a side stream.
"""

from collections import ChainMap
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

import torch

from prunelib.calibration.gram import GramSum
from prunelib.calibration.side_stream import SideStreamReader
from prunelib.calibration.statistics import InputStatistics
from prunelib.model.blockwise import BlockwiseForward, Stop
from prunelib.model.layers import Layer, LayerIndex, watch_inputs

_ENTRY_BYTES = torch.float32.itemsize

Receive = Callable[[str, torch.Tensor], None]
"""Takes the name of a layer and its inputs."""


def accumulate_grams(
    forward: BlockwiseForward,
    index: LayerIndex,
    parts: Sequence[Sequence[int]],
    *,
    gram_bytes: int,
    finished: Container[int] = (),
    on_batch: Callable[[int], None] = lambda _batch: None,
) -> Iterator[tuple[int, list[dict[str, InputStatistics]]]]:
    """Run batches of token windows through a model, and yield the Gram matrices of its layers block by block.

    If the Gram matrices of a block exceed the budget, the batches run through it several times; the result is the same
    bit for bit.

    Parameters
    ----------
    forward
        Positioned at the first block to run.
    parts
        For each part, the numbers of the batches that are summed.
    gram_bytes
        Device memory for Gram matrices, in bytes.
    finished
        Blocks whose Gram matrices are not needed: batches run through them, but nothing is yielded.
    on_batch
        Called with the number of each batch that leaves a block.

    Yields
    ------
    tuple
        Block number, and for each part the input statistics over all tokens by :attr:`Layer.gram`, on the CPU; the
        matrices are exactly symmetric. ``forward`` is then positioned at the next block.

    Raises
    ------
    ModelError
        If a layer, unless it is an expert, did not get every token exactly once.
    NumericalError
        If the inputs of a layer are NaN, infinite or too large for float32; the message names the layer.
    """
    last = max((block for block in range(index.blocks) if block not in finished), default=-1)

    def keep(batch: int) -> None:
        forward.keep(batch)
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
    on_run: Callable[[int], None] | None = None,
) -> list[dict[str, InputStatistics]]:
    """Run batches through the next block once, and return the input statistics of some layers for each part.

    Parameters
    ----------
    layers
        Layers of the next block with distinct inputs (:meth:`prunelib.model.layers.LayerIndex.readers`).
    parts
        For each part, the numbers of the batches that are summed.
    on_run
        Called with the number of each batch once it has run through the block; None: most batches run only to the last
        of the layers.

    Raises
    ------
    ModelError, NumericalError
        As :func:`accumulate_grams`.
    """
    statistics = []
    for batches in parts:
        sums = {layer.name: GramSum(layer.inputs, forward.device) for layer in layers}
        with SideStreamReader(forward.device) as reader:
            receive = _adding(sums, reader)
            for batch in batches:
                whole = on_run or batch == batches[0]  # the first finds layers that run twice
                run = _run_watched if whole else feed_watched
                run(forward, batch, layers, receive)
                if on_run:
                    on_run(batch)
            reader.finish()
        tokens = sum(forward.batches[batch].numel() for batch in batches)
        statistics.append({layer.name: sums[layer.name].complete(layer, tokens) for layer in layers})
    return statistics


def feed_watched(forward: BlockwiseForward, batch: int, layers: Sequence[Layer], receive: Receive) -> None:
    """Run a batch through the next block up to the last of some layers, and pass their inputs to ``receive``.

    If one of them is an expert, the batch runs through the whole block.
    """
    left = {layer.name: forward.batches[batch].numel() for layer in layers}

    def count(name: str, inputs: torch.Tensor) -> None:
        receive(name, inputs)
        left[name] -= inputs.numel() // inputs.shape[-1]
        if not any(left.values()):
            raise Stop

    fused = any(layer.fused for layer in layers)
    with watch_inputs(forward.model, layers, receive if fused else count):
        forward.feed(batch)


def _run_watched(forward: BlockwiseForward, batch: int, layers: Sequence[Layer], receive: Receive) -> None:
    """Run a batch through the next block, and pass the inputs of layers to ``receive``."""
    with watch_inputs(forward.model, layers, receive):
        forward.run(batch)


def _adding(sums: Mapping[str, GramSum], reader: SideStreamReader) -> Receive:
    return lambda name, inputs: reader.read(name, inputs, sums[name].add)


def plan_passes(layers: Iterable[Layer], budget_bytes: int) -> list[list[Layer]]:
    """Split the layers of a block into passes whose Gram matrices fit the budget.

    A pass has at least one layer, even if that exceeds the budget. Without layers there is one empty pass.
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
