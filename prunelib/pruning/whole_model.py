"""Refinement of a whole model: of its layers, from stored Gram matrices or on sequential inputs, then of its blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunelib.calibration.artifact import Calibration
from prunelib.masks.packed import read_masks
from prunelib.masks.patterns import Pattern, check_counts
from prunelib.methods.contract import MethodSettings
from prunelib.model.blockwise import Checkpoint
from prunelib.model.weights import check_masks, shapes_of, stored_tensors
from prunelib.pruning.chains import block_step, check_skipped
from prunelib.pruning.on_the_fly import load_on_the_fly
from prunelib.pruning.reconstruction import ModelReconstruction
from prunelib.pruning.refinement import BlockRefinement, FinishedBlocks, RefinedBlock, refine_blocks
from prunelib.runtime.machine import Machine
from prunelib.runtime.progress import Meter


@dataclass(frozen=True)
class ModelRefinement:
    """The refinement of a warm start of a whole model.

    Attributes
    ----------
    folder, dtype
        The folder of the model, and the dtype in which it runs.
    pattern
        The pattern of the whole model.
    warmstart, settings
        The settings of the warm start, and those of a refiner or a :class:`prunelib.pruning.chains.Chain`.
    masks, start
        The file of the warm start, and its expected provenance.
    """

    folder: Path
    dtype: str
    calibration: Calibration
    pattern: Pattern
    warmstart: MethodSettings
    settings: MethodSettings
    masks: Path
    start: Mapping[str, Any]

    def check_start(self) -> None:
        """Check that the warm start has a mask of the right shape for every layer, and the settings fit the layers.

        Raises
        ------
        ParamsError
            If the refiner is to skip layers that the model does not have.
        ArtifactError
            If its file is missing or damaged, or has another provenance.
        PatternError
            If a layer has no mask, or a mask has another shape.
        """
        check_skipped(self.settings, (layer.name for layer in self.calibration.index.layers))
        if self.calibration.inputs.shared:
            check_masks(shapes_of(self.calibration.index.layers), read_masks(self.masks, self.start))

    def run(self, finished: FinishedBlocks, machine: Machine, bar: Meter) -> list[RefinedBlock]:
        """Refine all blocks, and return them in the order of the model; their tensors stay on disk.

        Parameters
        ----------
        finished
            Refined blocks: those already present are reused, new ones are written there.
        bar
            Counts rows, once per step.

        Raises
        ------
        PatternError
            If a group of a refined mask does not keep the pattern's count.
        """
        folder, calibration, pattern, settings = self.folder, self.calibration, self.pattern, self.settings
        if calibration.inputs.shared:
            refinement = BlockRefinement(folder, calibration, self.masks, self.start, pattern, settings, finished)
            blocks = refine_blocks(refinement, bar)
        else:
            model = load_on_the_fly(folder, self.dtype, calibration, pattern, self.warmstart, settings, machine)
            blocks = list(model.refine(finished, bar, Checkpoint(finished.folder)))
        for block in blocks:
            check_counts(block.pruned.masks, pattern)
        return blocks

    def reconstruct(
        self, blocks: Sequence[RefinedBlock], finished: FinishedBlocks, machine: Machine, bar: Meter
    ) -> list[RefinedBlock]:
        """Refine whole blocks, if the settings say so, from the result of :meth:`run`; otherwise return that.

        Parameters
        ----------
        finished
            Reconstructed blocks: those already present are reused, new ones are written there.
        bar
            Counts windows whose gradients are computed.

        Raises
        ------
        NumericalError
            If a block of the dense model returns NaN or infinity.
        """
        settings = block_step(self.settings)
        if settings is None:
            return list(blocks)
        from prunelib.model.structure import load_model  # noqa: PLC0415 - heavy, and unused by refiners of layers

        stored = stored_tensors(self.folder)
        reconstruction = ModelReconstruction(
            model=load_model(self.folder, self.dtype, "cpu"),
            index=self.calibration.index,
            windows=self.calibration.windows()[0],
            settings=settings,
            stored=lambda layer: stored[layer.tensor].torch_dtype,
            device=torch.device(machine.device),
            state_bytes=machine.state_bytes,
            threads=machine.threads,
        )
        return reconstruction.run(blocks, finished, finished.folder, bar)
