"""Pre-flight checks of the stages: whether what they are about to compute has room, and will be of use.

Of memory, only this machine's is checked, and only if the tasks do not run on Ray.
"""

from collections.abc import Mapping
from math import ceil
from pathlib import Path

from prunelib import block_refiners, refiners
from prunelib.calibration.artifact import Calibration
from prunelib.calibration.settings import CalibrationSettings
from prunelib.errors import PatternError
from prunelib.masks.patterns import Pattern
from prunelib.methods import registry
from prunelib.methods.contract import MethodSettings
from prunelib.model.layers import LayerIndex
from prunelib.model.weights import weight_count
from prunelib.planning.capacity import require_disk, require_memory
from prunelib.planning.needs import (
    accumulating_bytes,
    calibration_disk,
    correcting_bytes,
    masks_disk,
    reconstructing_bytes,
    refining_bytes,
    shards_disk,
)
from prunelib.planning.shapes import WEIGHT_BYTES, Block
from prunelib.pruning.budgets import patterns_by_shape
from prunelib.pruning.chains import block_step, layer_steps, updates_weights
from prunelib.runtime.tasks import distributed


def require_capacity_to_calibrate(
    folder: Path, index: LayerIndex, settings: CalibrationSettings, token_bytes: int
) -> None:
    """Check that the Gram matrices fit, on disk, and in memory with the hidden states of all windows.

    Hidden states on a GPU are copied to the CPU while they are saved. With sequential calibration inputs the refine
    stage needs both; fail here, before calibrating.

    Parameters
    ----------
    folder
        Where the Gram matrices will be written.
    token_bytes
        Bytes of one token's hidden state between two blocks.

    Raises
    ------
    StageError
        If they do not fit; the message gives the bytes needed and the bytes free.
    """
    blocks, gram_sets = _blocks(index), settings.gram_sets
    if settings.inputs.shared:
        needed = calibration_disk(blocks, gram_sets) + shards_disk(blocks, gram_sets, settings.shards)
        require_disk(folder, needed, "Gram matrices of all blocks")
    if not distributed():
        samples = sum(ceil(part / settings.shards) for part in (settings.samples, settings.held_out_samples))
        states = settings.streams * samples * settings.length * token_bytes
        needed = accumulating_bytes(blocks, gram_sets) + states
        require_memory(needed, "Gram matrices of a block, and hidden states of all windows", "cpu")


def require_patterns_that_fit(patterns: Mapping[str, Pattern], index: LayerIndex) -> None:
    """Check that patterns, and their tables of sparsities, fit the layers of a model.

    The stages after calibration check their own; fail here, before calibrating. Patterns are no dependency of that
    stage: one that is added later reruns nothing.

    Parameters
    ----------
    patterns
        Those of the grid, by name.

    Raises
    ------
    PatternError
        If one does not fit; the message names the pattern and the layer.
    """
    for name, pattern in patterns.items():
        try:
            patterns_by_shape(index.layers, pattern)
        except PatternError as error:
            raise PatternError(f"patterns.{name}: {error}") from None


def require_capacity_to_refine(
    folder: Path, calibration: Calibration, refiner: MethodSettings, weight_bytes: int, device: str, threads: int = 1
) -> None:
    """Check that the refined masks and any updated weights fit on disk, and the largest layer or block in memory.

    Parameters
    ----------
    folder
        Where the masks and weights will be written.
    refiner
        The settings of one method, or a :class:`prunelib.pruning.chains.Chain`.
    weight_bytes
        Bytes of one weight, as the model stores it.
    device
        Where masks are refined.
    threads
        On the CPU, how many windows run through a block at the same time while it is reconstructed.

    Raises
    ------
    StageError
        If they do not fit; the message gives the bytes needed and the bytes free.
    """
    steps = [registry.refiner(refiners, step) for step in layer_steps(refiner)]
    blocks, settings = _blocks(calibration.index), calibration.settings
    weights = sum(block.prunable for block in blocks)
    last = block_step(refiner)
    updated = weights * weight_bytes if updates_weights(refiner) or settings.dense_target else 0
    require_disk(folder, masks_disk(blocks) + updated, "refined masks and updated weights")
    if not distributed():
        needed = refining_bytes(blocks, settings.gram_sets, [step.workspace for step in steps])
        if settings.dense_target:
            needed = max(needed, correcting_bytes(blocks))
        require_memory(needed, "refining the largest layer", device)
        if last:
            of_weight = registry.block_refiner(block_refiners, last).weight_bytes
            windows = min(threads, settings.samples) if device == "cpu" else 1
            needed = max(
                reconstructing_bytes(block, weight_bytes, of_weight, settings.length, windows) for block in blocks
            )
            require_memory(needed, "reconstructing the largest block", device)


def require_capacity_to_evaluate(folder: Path, dtype: str, device: str) -> None:
    """Check that the model in a folder fits into memory in a dtype.

    Raises
    ------
    StageError
        If it does not; the message gives the bytes needed and the bytes free.
    """
    if not distributed():
        require_memory(weight_count(folder) * WEIGHT_BYTES[dtype], "the model", device)


def _blocks(index: LayerIndex) -> list[Block]:
    return [Block.of(index.of_block(block)) for block in range(index.blocks)]
