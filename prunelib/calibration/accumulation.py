"""A whole model through calibration: the Gram matrices of its blocks, one after another."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.statistics import InputStatistics
from prunelib.calibration.whole_model import accumulate_grams
from prunelib.calibration.windows import in_batches
from prunelib.model.blockwise import BlockwiseForward, Checkpoint
from prunelib.model.layers import LayerIndex
from prunelib.runtime.machine import machine

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Blocks(Protocol):
    """Where the statistics of blocks are written, whole or not at all."""

    def __contains__(self, block: int) -> bool:
        """Whether a block is written."""
        ...

    def write(self, block: int, *parts: Mapping[str, InputStatistics]) -> None:
        """Write statistics by :attr:`Layer.gram`: of the windows, and where some are held out, of these."""
        ...


def calibrate_model(
    model: "PreTrainedModel",
    index: LayerIndex,
    windows: tuple[torch.Tensor, torch.Tensor],
    settings: CalibrationSettings,
    blocks: Blocks,
    scratch: Path,
    on_windows: Callable[[int], None] = lambda _windows: None,
) -> None:
    """Accumulate the Gram matrices of a model over token windows.

    Blocks that are written stay. The states between two blocks are written once a minute, so that a run which goes on
    repeats at most a minute's forward.

    Parameters
    ----------
    model
        On the processor.
    windows
        Those of the calibration and those held out, both (samples, length) int32; the second may have none.
    settings
        How many windows a forward pass takes.
    blocks
        Where statistics go.
    scratch
        Where an earlier run with the same arguments left the states (:mod:`prunelib.runtime.resume`).
    on_windows
        Told, once a block, how many windows have left it.
    """
    batches, parts = in_batches(windows, settings.batch)
    device = torch.device(machine().device)
    forward = BlockwiseForward(model, index.block_list, batches, device, machine().state_bytes)
    checkpoint = Checkpoint(scratch)
    checkpoint.resume(forward)
    on_windows(forward.block * sum(map(len, windows)))
    for block, statistics in accumulate_grams(
        forward,
        index,
        parts,
        gram_bytes=machine().gram_bytes,
        finished={block for block in range(index.blocks) if block in blocks},
        on_batch=lambda number: on_windows(len(batches[number])),
    ):
        blocks.write(block, *statistics)
        checkpoint.offer(forward)
