"""A whole model through calibration: its Gram matrices into a folder, where a run that was killed goes on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunelib.calibration.assembly import Assembly
from prunelib.calibration.gram import CalibrationSettings, accumulate_grams, in_batches
from prunelib.machine import machine
from prunelib.model.blockwise import BlockwiseForward, Checkpoint
from prunelib.model.layers import LayerIndex

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def calibrate_model(
    model: "PreTrainedModel",
    folder: Path,
    index: LayerIndex,
    windows: tuple[torch.Tensor, torch.Tensor],
    settings: CalibrationSettings,
    drawn_from: Mapping[str, Any],
    scratch: Path,
    on_windows: Callable[[int], None] = lambda _windows: None,
) -> Path:
    """Accumulate the Gram matrices of a model over token windows.

    Blocks that ``scratch`` has from an earlier run stay. The states between two blocks are written once a minute, so
    that a run which goes on repeats at most a minute's forward.

    Parameters
    ----------
    model, folder
        The model on the processor, and where it was read from.
    windows
        Those of the calibration and those held out, both (samples, length) int32; the second may have none.
    settings
        How many windows a forward pass takes, and whose inputs are asked for: but for ``dense``, refinement finds them.
    drawn_from
        What the windows were drawn from and how, the model's identity as ``model``.
    scratch
        What an earlier run with the same arguments has finished (:mod:`prunelib.resume`).
    on_windows
        Told, once a block, how many windows have left it.

    Returns
    -------
    Path
        The folder of a whole calibration (:mod:`prunelib.calibration.artifact`), in ``scratch``.
    """
    assembly = Assembly(scratch, folder, index, windows, settings, drawn_from)
    if settings.propagation != "dense":
        return assembly.finish()
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
        finished={block for block in range(index.blocks) if block in assembly},
        on_batch=lambda number: on_windows(len(batches[number])),
    ):
        assembly.write(block, statistics)
        checkpoint.offer(forward)
    return assembly.finish()
