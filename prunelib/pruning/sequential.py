"""Sequential refinement: each block is calibrated on the outputs of the already pruned blocks.

With ``true_sequential`` inputs each layer is also calibrated on the outputs of the already pruned layers of its own
block (:class:`prunelib.calibration.settings.CalibrationInputs`). These Gram matrices belong to one cell and are not
stored.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from prunelib.algebra.objective import output_energy
from prunelib.calibration.artifact import Calibration
from prunelib.calibration.settings import CalibrationInputs
from prunelib.calibration.statistics import InputStatistics, supported, warn_of_few
from prunelib.calibration.whole_model import accumulate_pass, plan_passes
from prunelib.calibration.windows import in_batches
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import ExtraInputs, MethodSettings
from prunelib.model.blockwise import BlockwiseForward, Checkpoint
from prunelib.model.layers import Layer, LayerIndex, watch_inputs
from prunelib.model.weights import apply_masks, apply_weights, read_weight
from prunelib.pruning.budgets import layer_patterns
from prunelib.pruning.refinement import (
    FinishedBlocks,
    LayerInputs,
    Losses,
    RefinedBlock,
    RefinedLayer,
    block_of,
    refine_layer,
)
from prunelib.pruning.warmstart import Choose, chooser
from prunelib.runtime.compute import AUTO, Compute
from prunelib.runtime.machine import Machine
from prunelib.runtime.progress import Meter


@dataclass(frozen=True)
class SequentialRefinement:
    """A model to be refined block by block on sequential calibration inputs.

    Attributes
    ----------
    forward
        The forward pass, at the first block to refine; earlier blocks are finished.
    index, folder
        The model's layers, and the folder of the dense model.
    parts
        The indices of the calibration batches, and those of the held-out batches, if any.
    choose
        The warm start.
    patterns
        The pattern of each layer, by name.
    settings
        Those of one method in :mod:`prunelib.refiners`, or a :class:`prunelib.pruning.chains.Chain`.
    inputs
        ``sequential`` or ``true_sequential``.
    gram_bytes
        Memory for Gram matrices, in bytes, on the device that runs the forward pass.
    min_tokens
        As in :class:`prunelib.calibration.settings.CalibrationSettings`.
    device, compute
        The device that refines masks, threads and kernels.
    """

    forward: BlockwiseForward
    index: LayerIndex
    folder: Path
    parts: Sequence[Sequence[int]]
    choose: Choose
    patterns: Mapping[str, Pattern]
    settings: MethodSettings
    inputs: CalibrationInputs
    gram_bytes: int
    min_tokens: int
    device: torch.device
    compute: Compute = AUTO

    def refine(self, checkpoint: Checkpoint, finished: FinishedBlocks, bar: Meter) -> Iterator[RefinedBlock]:
        """Choose, refine and apply the masks block by block; the tensors of the yielded blocks stay on disk.

        Parameters
        ----------
        checkpoint
            Storage of the hidden states between blocks; an earlier run resumes from it.
        finished
            Refined blocks: those already present are reused, new ones are written there.
        bar
            Counts rows, once per step.
        """
        checkpoint.resume(self.forward)
        losses, seen = Losses(bar), dict[str, int]()
        for block in range(self.index.blocks):
            known = finished.find(block)
            if known:
                losses.add_finished(known)
            if block == self.forward.block:
                with self.forward.resident():
                    if known:
                        self._apply(self.index.of_block(block), known)
                    else:
                        finished.write(block, self._refine(losses))
                    for batch in range(len(self.forward.batches)):
                        self.forward.run(batch)
                        self.forward.keep(batch)
                self.forward.advance()
                checkpoint.offer(self.forward)
            refined = known or finished.read(block)
            grams = {layer.name: layer.gram for layer in self.index.of_block(block)}
            seen |= {grams[layer.name]: layer.tokens for layer in refined.records if layer.tokens is not None}
            yield refined
        warn_of_few(seen, self.min_tokens)

    def _refine(self, losses: Losses) -> RefinedBlock:
        """Refine the layers of the next block, and apply the results to its weights on the device."""
        layers = self.index.of_block(self.forward.block)
        refined: dict[str, RefinedLayer] = {}
        for group in self._groups():
            inputs = self._accumulate(group)
            readers = [layer for layer in layers if layer.gram in inputs]
            refined |= {layer.name: self._refine_layer(layer, inputs[layer.gram], losses) for layer in readers}
            self._apply(readers, block_of([refined[layer.name] for layer in readers]))
        return block_of([refined[layer.name] for layer in layers])

    def _groups(self) -> list[Sequence[Layer]]:
        """Return the readers of the next block, grouped by joint calibration, in the order in which they run."""
        readers = self.index.readers(self.forward.block)
        if self.inputs is CalibrationInputs.SEQUENTIAL:
            return [readers]
        parameters = {layer.name: layer.parameter for layer in readers}
        read: dict[str, None] = {}  # a parameter that several experts share counts once, at the first to run
        with watch_inputs(self.forward.model, readers, lambda name, _: read.setdefault(parameters[name])):
            self.forward.run(0)
        return [[layer for layer in readers if layer.parameter == parameter] for parameter in read]

    def _accumulate(self, group: Sequence[Layer]) -> dict[str, Sequence[InputStatistics]]:
        """Return the statistics of each input by name, over the calibration windows and over held-out windows."""
        passes = [accumulate_pass(self.forward, layers, self.parts) for layers in plan_passes(group, self.gram_bytes)]
        return {name: [part[name] for part in parts] for parts in passes for name in parts[0]}

    def _refine_layer(self, layer: Layer, inputs: Sequence[InputStatistics], losses: Losses) -> RefinedLayer:
        weight = read_weight(self.folder, layer)
        seen, *held_out = (supported(layer, each, self.min_tokens) for each in inputs)
        extra = ExtraInputs(
            input_mean=seen.mean,
            tokens=seen.tokens,
            windows=sum(len(self.forward.batches[batch]) for batch in self.parts[0]),
            name=layer.name,
            held_out_gram=held_out[0].gram if held_out else None,
        )
        known = LayerInputs(seen.gram, extra, output_energy(weight, seen.gram))
        mask = self.choose(layer, weight, seen.gram)
        return refine_layer(
            layer, weight, known, mask, self.patterns[layer.name], self.settings, losses.add, self.device, self.compute
        )

    def _apply(self, layers: Iterable[Layer], refined: RefinedBlock) -> None:
        layers = tuple(layers)
        apply_masks(self.forward.model, layers, refined.pruned.masks)
        apply_weights(self.forward.model, layers, refined.pruned.weights)


def load_sequential(
    folder: Path,
    dtype: str,
    calibration: Calibration,
    pattern: Pattern,
    warmstart: MethodSettings,
    settings: MethodSettings,
    machine: Machine,
) -> SequentialRefinement:
    """Load a model for sequential refinement, at its first block.

    Parameters
    ----------
    folder, dtype
        The folder of the model, and the dtype in which it runs.
    calibration
        The calibration windows, and the kind of calibration inputs.
    warmstart, settings
        The settings of a warm start, and those of a refiner or a chain.
    machine
        Devices, memory budgets and threads.

    Raises
    ------
    ArtifactError, ModelError
        As :func:`prunelib.model.structure.load_model`.
    """
    from prunelib.model.structure import load_model  # noqa: PLC0415 - heavy, and unused with inputs of the dense model

    batches, parts = in_batches(calibration.windows(), calibration.settings["batch"])
    index, patterns = calibration.index, layer_patterns(folder, calibration, pattern)
    runs_on, refines_on = torch.device(machine.device), torch.device(machine.refining_device)
    model = load_model(folder, dtype, "cpu")
    return SequentialRefinement(
        forward=BlockwiseForward(model, index.block_list, batches, runs_on, machine.state_bytes),
        index=index,
        folder=folder,
        parts=parts,
        choose=chooser(calibration, patterns, warmstart, refines_on),
        patterns=patterns,
        settings=settings,
        inputs=calibration.inputs,
        gram_bytes=machine.gram_bytes,
        min_tokens=calibration.settings["min_tokens"],
        device=refines_on,
        compute=machine.compute,
    )
