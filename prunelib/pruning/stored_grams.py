"""Refinement of a whole model from weights and Gram matrices on disk, one task per block."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prunelib.calibration.artifact import Calibration
from prunelib.masks.checks import patterns_of
from prunelib.masks.packed import read_masks
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import MethodSettings, Progress, silent
from prunelib.model.layers import Layer
from prunelib.model.weights import read_weight
from prunelib.pruning.losses import Losses
from prunelib.pruning.refined_blocks import FinishedBlocks, RefinedBlock
from prunelib.pruning.refined_layers import LayerInputs, RefinedLayer, block_of, refine_layer
from prunelib.pruning.warm_up import warm_up
from prunelib.runtime.machine import machine
from prunelib.runtime.prefetch import read_ahead
from prunelib.runtime.progress import Meter
from prunelib.runtime.tasks import run_tasks


@dataclass(frozen=True)
class BlockRefinement:
    """The refinement of a cell's blocks from Gram matrices on disk, one task per block (:mod:`prunelib.runtime.tasks`).

    Attributes
    ----------
    folder
        The model.
    warmstart_file, warmstart_provenance
        The file of the masks to refine, and its expected provenance.
    pattern
        The pattern of these masks.
    refiner
        The settings of one method in :mod:`prunelib.refiners`, or a :class:`prunelib.pruning.chains.Chain`.
    finished
        The refined blocks; new ones are written there.
    progress
        Called as rows are finished, once per step.
    """

    folder: Path
    calibration: Calibration
    warmstart_file: Path
    warmstart_provenance: Mapping[str, Any]
    pattern: Pattern
    refiner: MethodSettings
    finished: FinishedBlocks
    progress: Progress = silent

    def __call__(self, block: int) -> int:
        """Refine the layers of a block, write the block, and return its number."""
        layers, device = self.calibration.index.of_block(block), torch.device(machine().refining_device)
        compute = machine().compute
        warm_up(self.refiner, self.pattern, device, {layer.inputs for layer in layers}, compute=compute)
        masks = read_masks(self.warmstart_file, self.warmstart_provenance, {layer.name for layer in layers})
        patterns = patterns_of(masks, self.pattern)

        def refine(layer: Layer, weight: torch.Tensor, inputs: LayerInputs) -> RefinedLayer:
            mask, pattern = masks[layer.name], patterns[layer.name]
            return refine_layer(layer, weight, inputs, mask, pattern, self.refiner, self.progress, device, compute)

        self.finished.write(block, block_of([refine(*read) for read in read_ahead(self._read, layers)]))
        return block

    def cost(self, block: int) -> float:
        """Return the relative cost of a block, in arbitrary units."""
        return sum(layer.rows * layer.inputs**2 for layer in self.calibration.index.of_block(block))

    def _read(self, layer: Layer) -> tuple[Layer, torch.Tensor, LayerInputs]:
        calibration = self.calibration
        inputs = LayerInputs(calibration.gram(layer), calibration.extra_inputs(layer), calibration.energies[layer.name])
        return layer, read_weight(self.folder, layer), inputs


def refine_blocks(refinement: BlockRefinement, bar: Meter) -> list[RefinedBlock]:
    """Refine all unfinished blocks, and return all blocks in the order of the model; their tensors stay on disk.

    Parameters
    ----------
    bar
        Counts rows, once per step.
    """
    finished, blocks, losses = refinement.finished, range(refinement.calibration.index.blocks), Losses(bar)
    waiting = []
    for block in blocks:
        if known := finished.find(block):
            losses.add_finished(known)
        else:
            waiting.append(block)
    here = replace(refinement, progress=losses.add)
    run_tasks(refinement, waiting, refinement.cost, finished.folder, losses.add_from(finished), here)
    return [finished.read(block) for block in blocks]
