"""What the stages call before they work: whether disk and memory can hold what they are about to make.

The memory is that of this machine, and not looked at where tasks run on others.
"""

from math import ceil
from pathlib import Path

import torch

from prunelib import refiners
from prunelib.calibration.settings import CalibrationSettings
from prunelib.methods import registry
from prunelib.methods.contract import MethodSettings
from prunelib.model.layers import LayerIndex
from prunelib.model.weights import weight_count
from prunelib.planning.capacity import require_disk, require_memory
from prunelib.planning.needs import accumulating_bytes, calibration_disk, masks_disk, refining_bytes, shards_disk
from prunelib.planning.shapes import WEIGHT_BYTES, Block, Matrix
from prunelib.pruning.chains import steps_of
from prunelib.runtime.machine import machine
from prunelib.runtime.tasks import distributed


def require_room_to_calibrate(folder: Path, index: LayerIndex, settings: CalibrationSettings, token_bytes: int) -> None:
    """Refuse to accumulate Gram matrices that would not fit, with the states of all windows beside them.

    States on a GPU are on the processor too while they are saved. With inputs that come about it is refinement that
    will hold both: it is refused before its calibration is.

    Parameters
    ----------
    folder
        Where they will be written.
    token_bytes
        Of a token's state between two blocks.

    Raises
    ------
    StageError
        With what is needed and what is free.
    """
    blocks, gram_sets = _blocks(index), 2 if settings.held_out_samples else 1
    if settings.propagation == "dense":
        needed = calibration_disk(blocks, gram_sets) + shards_disk(blocks, gram_sets, settings.shards)
        require_disk(folder, needed, "Gram matrices of all blocks")
    if not distributed():
        samples = sum(ceil(part / settings.shards) for part in (settings.samples, settings.held_out_samples))
        needed = accumulating_bytes(blocks, gram_sets) + samples * settings.length * token_bytes
        require_memory(needed, "Gram matrices of a block, and states of all windows", "cpu")


def require_room_to_refine(
    folder: Path, index: LayerIndex, settings: MethodSettings, weight_bytes: int, gram_sets: int, device: torch.device
) -> None:
    """Refuse to refine layers whose masks, and moved weights where there are such, would not fit.

    Parameters
    ----------
    folder
        Where they will be written.
    settings
        Of one refiner, or a :class:`prunelib.pruning.chains.Chain`.
    weight_bytes
        Of one weight, as the model stores it.
    gram_sets
        2 where the calibration has tokens that were kept apart, else 1.
    device
        Where masks are refined.

    Raises
    ------
    StageError
        With what is needed and what is free.
    """
    steps = [registry.refiner(refiners, step) for step in steps_of(settings)]
    blocks = _blocks(index)
    moved = sum(block.prunable for block in blocks) * weight_bytes if any(step.updates_weights for step in steps) else 0
    require_disk(folder, masks_disk(blocks) + moved, "refined masks and moved weights")
    if not distributed():
        needed = refining_bytes(blocks, gram_sets, [step.workspace for step in steps])
        require_memory(needed, "refining the largest layer", str(device))


def require_room_to_evaluate(folder: Path, dtype: str) -> None:
    """Refuse to load a model, in a folder, that memory cannot hold in a dtype.

    Raises
    ------
    StageError
        With what is needed and what is free.
    """
    if not distributed():
        require_memory(weight_count(folder) * WEIGHT_BYTES[dtype], "the model", machine().device)


def _blocks(index: LayerIndex) -> list[Block]:
    return [
        Block(tuple(Matrix(layer.name, layer.rows, layer.inputs, layer.gram) for layer in index.of_block(block)))
        for block in range(index.blocks)
    ]
