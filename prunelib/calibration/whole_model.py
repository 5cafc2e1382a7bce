"""Calibration of a whole model: the Gram matrices of its blocks, one block after another."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from prunelib.calibration.accumulation import accumulate_grams
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.statistics import BlockStatistics
from prunelib.calibration.windows import in_batches
from prunelib.model.blockwise import BlockwiseForward, Checkpoint
from prunelib.model.layers import LayerIndex
from prunelib.runtime.machine import Machine

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Blocks(Protocol):
    """Destination of the statistics of blocks; each block is written completely or not at all."""

    def __contains__(self, block: int) -> bool:
        """Return whether a block has been written."""
        ...

    def write(self, block: int, parts: BlockStatistics) -> None:
        """Write the statistics of a block."""
        ...


def calibrate_model(
    model: "PreTrainedModel",
    index: LayerIndex,
    windows: tuple[torch.Tensor, torch.Tensor],
    settings: CalibrationSettings,
    blocks: Blocks,
    scratch: Path,
    machine: Machine,
    on_windows: Callable[[int], None] = lambda _windows: None,
) -> None:
    """Accumulate the Gram matrices of a model over token windows.

    Blocks that have been written are kept. The hidden states between two blocks are saved at most once a minute, so a
    resumed run repeats about a minute of forward passes.

    Parameters
    ----------
    model
        On the CPU.
    windows
        Calibration and held-out windows, both (samples, length) int32; the second may be empty.
    settings
        Its ``batch`` is the number of windows per forward pass.
    blocks
        Destination of the statistics.
    scratch
        Folder of the hidden states saved by an earlier run with the same arguments (:mod:`prunelib.runtime.resume`).
    machine
        The device of the forward pass, and its memory budgets.
    on_windows
        Callback: receives the number of windows that have passed through a block.
    """
    batches, parts = in_batches(windows, settings.batch)
    device = torch.device(machine.device)
    forward = BlockwiseForward(model, index.block_list, batches, device, machine.state_bytes)
    checkpoint = Checkpoint(scratch)
    finished = {block for block in range(index.blocks) if block in blocks}
    checkpoint.resume(forward, finished=next(block for block in count() if block not in finished))
    on_windows(forward.block * sum(map(len, windows)))
    for block, statistics in accumulate_grams(
        forward,
        index,
        parts,
        gram_bytes=machine.gram_bytes,
        finished=finished,
        on_batch=lambda number: on_windows(len(batches[number])),
    ):
        blocks.write(block, statistics)
        checkpoint.offer(forward)
