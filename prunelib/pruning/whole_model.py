"""Refinement of a whole model: of its layers, from stored Gram matrices or on sequential inputs, then of its blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prunelib.calibration.artifact import Calibration
from prunelib.masks.checks import check_counts
from prunelib.masks.packed import read_masks
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import MethodSettings
from prunelib.model.blockwise import Checkpoint
from prunelib.model.weights import check_masks, shapes_of, stored_tensors
from prunelib.pruning.chains import block_step, check_skipped, layer_steps
from prunelib.pruning.on_the_fly import load_on_the_fly
from prunelib.pruning.reconstruction import ModelReconstruction
from prunelib.pruning.refined_blocks import FinishedBlocks, RefinedBlock
from prunelib.pruning.stored_grams import BlockRefinement, refine_blocks
from prunelib.pruning.warm_up import warm_up
from prunelib.runtime.hashing import sha256_file
from prunelib.runtime.machine import Machine
from prunelib.runtime.progress import Meter, note


@dataclass(frozen=True)
class ModelRefinement:
    """The refinement of a warm start of a whole model.

    Attributes
    ----------
    folder, dtype
        The folder of the model, and the dtype in which it runs.
    pattern
        The pattern of the whole model.
    warmstart, refiner
        The settings of the warm start, and those of a refiner or a :class:`prunelib.pruning.chains.Chain`.
    warmstart_file, warmstart_provenance
        The file of the warm start's masks, and its expected provenance.
    """

    folder: Path
    dtype: str
    calibration: Calibration
    pattern: Pattern
    warmstart: MethodSettings
    refiner: MethodSettings
    warmstart_file: Path
    warmstart_provenance: Mapping[str, Any]

    def check(self) -> None:
        """Check that the warm start has a mask of the right shape for every layer, and the refiner fits the layers.

        Raises
        ------
        ParamsError
            If the refiner is to skip layers that the model does not have.
        ArtifactError
            If its file is missing or damaged, or has another provenance.
        PatternError
            If a layer has no mask, or a mask has another shape.
        """
        check_skipped(self.refiner, (layer.name for layer in self.calibration.index.layers))
        if self.calibration.inputs.shared:
            check_masks(
                shapes_of(self.calibration.index.layers), read_masks(self.warmstart_file, self.warmstart_provenance)
            )

    @property
    def rows(self) -> int:
        """How many rows are refined, each once per step that refines layers."""
        return sum(layer.rows for layer in self.calibration.index.layers) * len(layer_steps(self.refiner))

    @property
    def gradients(self) -> int:
        """How many windows' gradients the refinement of whole blocks takes; 0 without one."""
        last, calibration = block_step(self.refiner), self.calibration
        return calibration.index.blocks * last.gradients(calibration.settings.samples) if last else 0

    def decided_by(self) -> dict[str, str]:
        """Return the identities of what the result is made from: calibration, warm start, dtype."""
        return {
            "calibration": self.calibration.identity(),
            "start": sha256_file(self.warmstart_file),
            "dtype": self.dtype,
        }

    def warm_up(self, machine: Machine) -> None:
        """Compile the kernels that the refiner needs, with a note if one is not on this machine yet."""
        widths = {layer.inputs for layer in self.calibration.index.layers}
        compiling = partial(note, "compiling kernels, once on this machine")
        warm_up(self.refiner, self.pattern, torch.device(machine.refining_device), widths, compiling, machine.compute)

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
        if self.calibration.inputs.shared:
            refinement = BlockRefinement(
                folder=self.folder,
                calibration=self.calibration,
                warmstart_file=self.warmstart_file,
                warmstart_provenance=self.warmstart_provenance,
                pattern=self.pattern,
                refiner=self.refiner,
                finished=finished,
            )
            blocks = refine_blocks(refinement, bar)
        else:
            model = load_on_the_fly(
                self.folder, self.dtype, self.calibration, self.pattern, self.warmstart, self.refiner, machine
            )
            blocks = list(model.refine(finished, bar, Checkpoint(finished.folder)))
        for block in blocks:
            check_counts(block.pruned.masks, self.pattern)
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
        settings = block_step(self.refiner)
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
