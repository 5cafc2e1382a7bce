"""A whole model refined while its inputs come about: each block sees what the pruned blocks before it leave.

As the scripts of Wanda and SparseGPT do (``block``); with ``sub_block`` a block's layers see what the pruned ones
before them leave, too. Such Gram matrices belong to one cell, and are not kept.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from prunelib.algebra.objective import output_energy
from prunelib.calibration.artifact import Calibration
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
from prunelib.runtime.machine import machine
from prunelib.runtime.progress import Meter


@dataclass(frozen=True)
class Propagated:
    """A model to be refined block by block on the inputs that come about.

    Attributes
    ----------
    forward
        At the block to begin with; those before it are finished.
    index, folder
        The model's layers, and its folder with the stock weights.
    parts
        The numbers of the calibration's batches, and of those held out where there are such.
    choose
        The warm start.
    patterns
        By layer name.
    settings
        Of one method in :mod:`prunelib.refiners`, or a :class:`prunelib.pruning.chains.Chain`.
    propagation
        ``block`` or ``sub_block``.
    gram_bytes
        Memory on the forward's device for Gram matrices.
    least_tokens
        As in :class:`prunelib.calibration.settings.CalibrationSettings`.
    device
        Where masks are refined.
    """

    forward: BlockwiseForward
    index: LayerIndex
    folder: Path
    parts: Sequence[Sequence[int]]
    choose: Choose
    patterns: Mapping[str, Pattern]
    settings: MethodSettings
    propagation: str
    gram_bytes: int
    least_tokens: int
    device: torch.device

    def refine(self, checkpoint: Checkpoint, finished: FinishedBlocks, bar: Meter) -> Iterator[RefinedBlock]:
        """Choose, refine and apply the masks of one block after another; what is yielded stays on disk.

        Parameters
        ----------
        checkpoint
            Where the states between blocks are written, and from where an earlier run's are taken.
        finished
            Where blocks are written, and from where those that are there already are taken.
        bar
            Counts rows, once a step.
        """
        checkpoint.resume(self.forward)
        losses, seen = Losses(bar), dict[str, int]()
        for block in range(self.index.blocks):
            known = finished.read(block) if block in finished else None
            if known:
                losses.add_finished(known)
            if block == self.forward.block:
                with self.forward.resident():
                    if known:
                        self._apply(self.index.of_block(block), known)
                    else:
                        finished.write(block, self._refine(losses))
                    for batch in range(len(self.forward.batches)):
                        self.forward.keep(batch, self.forward.run(batch))
                self.forward.advance()
                checkpoint.offer(self.forward)
            refined = known or finished.read(block)
            grams = {layer.name: layer.gram for layer in self.index.of_block(block)}
            seen |= {grams[layer.name]: layer.tokens for layer in refined.records if layer.tokens is not None}
            yield refined
        warn_of_few(seen, self.least_tokens)

    def _refine(self, losses: Losses) -> RefinedBlock:
        """Refine the next block's layers, and apply what comes out to its weights on the device."""
        layers = self.index.of_block(self.forward.block)
        refined: dict[str, RefinedLayer] = {}
        for group in self._groups():
            inputs = self._accumulate(group)
            readers = [layer for layer in layers if layer.gram in inputs]
            refined |= {layer.name: self._refine_layer(layer, inputs[layer.gram], losses) for layer in readers}
            self._apply(readers, block_of([refined[layer.name] for layer in readers]))
        return block_of([refined[layer.name] for layer in layers])

    def _groups(self) -> list[Sequence[Layer]]:
        """The readers of the next block whose inputs are looked at block_of, in the order in which they run."""
        readers = self.index.readers(self.forward.block)
        if self.propagation == "block":
            return [readers]
        parameters = {layer.name: layer.parameter for layer in readers}
        read: dict[str, None] = {}  # a parameter with all experts once, by whichever of them is first
        with watch_inputs(self.forward.model, readers, lambda name, _: read.setdefault(parameters[name])):
            self.forward.run(0)
        return [[layer for layer in readers if layer.parameter == parameter] for parameter in read]

    def _accumulate(self, group: Sequence[Layer]) -> dict[str, Sequence[InputStatistics]]:
        """The statistics of inputs by name, over the calibration's windows and over those held out."""
        passes = [accumulate_pass(self.forward, layers, self.parts) for layers in plan_passes(group, self.gram_bytes)]
        return {name: [part[name] for part in parts] for parts in passes for name in parts[0]}

    def _refine_layer(self, layer: Layer, inputs: Sequence[InputStatistics], losses: Losses) -> RefinedLayer:
        weight = read_weight(self.folder, layer)
        seen, *held_out = (supported(layer, each, self.least_tokens) for each in inputs)
        extra = ExtraInputs(
            input_mean=seen.mean, tokens=seen.tokens, held_out_gram=held_out[0].gram if held_out else None
        )
        known = LayerInputs(seen.gram, extra, output_energy(weight, seen.gram))
        mask = self.choose(layer, weight, seen.gram)
        return refine_layer(
            layer, weight, known, mask, self.patterns[layer.name], self.settings, losses.add, self.device
        )

    def _apply(self, layers: Iterable[Layer], refined: RefinedBlock) -> None:
        layers = tuple(layers)
        apply_masks(self.forward.model, layers, refined.pruned.masks)
        apply_weights(self.forward.model, layers, refined.pruned.weights)


def load_propagated(
    folder: Path,
    dtype: str,
    calibration: Calibration,
    pattern: Pattern,
    warmstart: MethodSettings,
    settings: MethodSettings,
) -> Propagated:
    """Load a model to be refined on the inputs that come about, at its first block.

    Parameters
    ----------
    folder, dtype
        The model's, and what it runs in.
    calibration
        Its windows, and whose inputs are asked for.
    warmstart, settings
        Of a warm start, and of a refiner or a chain.

    Raises
    ------
    ArtifactError, ModelError
        As :func:`prunelib.model.structure.load_model`.
    """
    from prunelib.model.structure import load_model  # noqa: PLC0415 - heavy, and inputs of the stock model need none

    batches, parts = in_batches(calibration.windows(), calibration.settings["batch"])
    index, patterns = calibration.index, layer_patterns(folder, calibration, pattern)
    runs_on, refines_on = torch.device(machine().device), torch.device(machine().refining_device)
    model = load_model(folder, dtype, "cpu")
    return Propagated(
        forward=BlockwiseForward(model, index.block_list, batches, runs_on, machine().state_bytes),
        index=index,
        folder=folder,
        parts=parts,
        choose=chooser(calibration, patterns, warmstart, refines_on),
        patterns=patterns,
        settings=settings,
        propagation=calibration.settings["propagation"],
        gram_bytes=machine().gram_bytes,
        least_tokens=calibration.settings["least_tokens"],
        device=refines_on,
    )
