"""Calibration and refinement in one pass, block by block: Gram matrices are computed on the fly and not stored.

With ``sequential`` inputs each block is calibrated on the outputs of the already pruned blocks, and with
``true_sequential`` inputs each layer also on those of the already pruned layers of its own block
(:class:`prunelib.calibration.settings.CalibrationInputs`): these Gram matrices belong to one cell.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from prunelib.algebra.objective import output_energy
from prunelib.calibration.accumulation import accumulate_pass, plan_passes
from prunelib.calibration.artifact import Calibration
from prunelib.calibration.dense_targets import DenseTargets, corrected
from prunelib.calibration.settings import CalibrationInputs
from prunelib.calibration.statistics import InputStatistics, or_identity, warn_of_few
from prunelib.calibration.windows import in_batches
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import ExtraInputs, MethodSettings
from prunelib.model.blockwise import BlockwiseForward, Checkpoint
from prunelib.model.layers import Layer, LayerIndex, watch_inputs
from prunelib.model.weights import apply_pruned, read_weight
from prunelib.pruning.budgets import stored_patterns
from prunelib.pruning.losses import Losses
from prunelib.pruning.refined_blocks import BlockStore, RefinedBlock
from prunelib.pruning.refined_layers import LayerInputs, RefinedLayer, block_of, refine_layer
from prunelib.pruning.warmstart import Choose, chooser
from prunelib.runtime.compute import AUTO, Compute
from prunelib.runtime.machine import Machine
from prunelib.runtime.progress import Meter


@dataclass(frozen=True)
class OnTheFlyRefinement:
    """A model to be calibrated and refined block by block in one pass.

    Attributes
    ----------
    forward
        The forward pass, at the first block to refine; earlier blocks are finished.
    index
        The model's layers.
    weight
        Returns the dense weight (rows, inputs) of a layer.
    parts
        The indices of the calibration batches, and those of the held-out batches, if any.
    choose
        The warm start.
    patterns
        The pattern of each layer, by name.
    settings
        Those of one method in :mod:`prunelib.refiners`, or a :class:`prunelib.pruning.chains.Chain`.
    inputs
        The forward pass that the calibration inputs come from.
    gram_bytes
        Memory for Gram matrices, in bytes, on the device that runs the forward pass.
    min_tokens
        As in :class:`prunelib.calibration.settings.CalibrationSettings`.
    device, compute
        The device that refines masks, threads and kernels.
    targets
        The windows in the dense model, at its first block, for weights that make up for changed inputs; None: weights
        are pruned as they are.
    """

    forward: BlockwiseForward
    index: LayerIndex
    weight: Callable[[Layer], torch.Tensor]
    parts: Sequence[Sequence[int]]
    choose: Choose
    patterns: Mapping[str, Pattern]
    settings: MethodSettings
    inputs: CalibrationInputs
    gram_bytes: int
    min_tokens: int
    device: torch.device
    compute: Compute = AUTO
    targets: DenseTargets | None = None

    def refine(self, finished: BlockStore, bar: Meter, checkpoint: Checkpoint | None = None) -> Iterator[RefinedBlock]:
        """Calibrate, choose and refine the masks block by block, in the order of the model.

        Unless the inputs are ``dense``, the masks of each block are applied before the next one is calibrated, to
        copies of its weights on the device: those of the model itself stay dense.

        Parameters
        ----------
        finished
            Refined blocks: those already present are reused, new ones are written there.
        bar
            Counts rows, once per step.
        checkpoint
            Storage of the hidden states between blocks; an earlier run resumes from it.
        """
        saved = {self.forward: checkpoint} if checkpoint else {}
        if checkpoint and self.targets:
            saved[self.targets.forward] = checkpoint.beside("dense")
        if saved:
            missing = next((block for block in range(self.index.blocks) if not finished.find(block)), self.index.blocks)
            for stream, of_stream in saved.items():
                of_stream.resume(stream, finished=missing)
        losses, seen = Losses(bar), dict[str, int]()
        for block in range(self.index.blocks):
            known = finished.find(block)
            if known:
                losses.add_finished(known)
            if block == self.forward.block:
                with self._resident(refined=known is not None):
                    if not known:
                        finished.write(block, self._refine(losses))
                    elif not self.inputs.shared:
                        self._apply(self.index.of_block(block), known)
                    if known or not self.inputs.shared:
                        self.forward.pass_through(range(len(self.forward.batches)))
                self.forward.advance()
            if self.targets and block == self.targets.forward.block:
                self.targets.advance()
            for stream, of_stream in saved.items():
                of_stream.offer(stream)
            refined = known or finished.read(block)
            grams = {layer.name: layer.gram for layer in self.index.of_block(block)}
            seen |= {grams[layer.name]: layer.tokens for layer in refined.records if layer.tokens is not None}
            yield refined
        warn_of_few(seen, self.min_tokens)

    @contextlib.contextmanager
    def _resident(self, *, refined: bool) -> Iterator[None]:
        """Have copies of the next block on the device while the context is open: to prune, and dense if needed."""
        dense = self.targets.forward.resident() if self.targets and not refined else contextlib.nullcontext()
        with dense, self.forward.resident():
            yield

    def _refine(self, losses: Losses) -> RefinedBlock:
        """Calibrate and refine the layers of the next block; inputs that are not ``dense`` see the results at once."""
        layers = self.index.of_block(self.forward.block)
        refined: dict[str, RefinedLayer] = {}
        for group in self._groups():
            inputs = self._accumulate(group)
            corrections = self._corrections(group, inputs)
            readers = [layer for layer in layers if layer.gram in inputs]
            for layer in readers:
                refined[layer.name] = self._refine_layer(layer, inputs[layer.gram], corrections.get(layer.gram), losses)
            if not self.inputs.shared:
                self._apply(readers, block_of([refined[layer.name] for layer in readers]))
        return block_of([refined[layer.name] for layer in layers])

    def _groups(self) -> list[Sequence[Layer]]:
        """Return the readers of the next block, grouped by joint calibration, in the order in which they run."""
        readers = self.index.readers(self.forward.block)
        if self.inputs is not CalibrationInputs.TRUE_SEQUENTIAL:
            return [readers]
        parameters = {layer.name: layer.parameter for layer in readers}
        read: dict[str, None] = {}  # a parameter that several experts share counts once, at the first to run
        with watch_inputs(self.forward.model, readers, lambda name, _: read.setdefault(parameters[name])):
            self.forward.run(0)
        return [[layer for layer in readers if layer.parameter == parameter] for parameter in read]

    def _accumulate(self, group: Sequence[Layer]) -> dict[str, Sequence[InputStatistics]]:
        """Return the statistics of each input by name, over the calibration windows and over held-out windows."""
        *first_passes, last_pass = plan_passes(group, self.gram_bytes)
        passes = [accumulate_pass(self.forward, layers, self.parts) for layers in first_passes]
        if self.inputs.shared:  # nothing is applied to this block: what leaves it now is what the next block reads
            passes.append(accumulate_pass(self.forward, last_pass, self.parts, self.forward.keep))
        else:
            passes.append(accumulate_pass(self.forward, last_pass, self.parts))
        return {name: [part[name] for part in parts] for parts in passes for name in parts[0]}

    def _corrections(
        self, group: Sequence[Layer], inputs: Mapping[str, Sequence[InputStatistics]]
    ) -> dict[str, torch.Tensor]:
        """Return what the weights of the layers that read each input are corrected by, by its name."""
        if not self.targets:
            return {}
        grams = {name: parts[0].gram for name, parts in inputs.items()}
        return self.targets.corrections(self.forward, group, grams, self.gram_bytes, self.device)

    def _refine_layer(
        self, layer: Layer, inputs: Sequence[InputStatistics], correction: torch.Tensor | None, losses: Losses
    ) -> RefinedLayer:
        weight = self.weight(layer)
        if correction is not None:
            weight = corrected(layer.name, weight.to(self.device), correction).to(weight.device)
        seen, *held_out = or_identity(layer, inputs, self.min_tokens)
        extra = ExtraInputs(
            input_mean=seen.mean,
            tokens=seen.tokens,
            windows=sum(len(self.forward.batches[batch]) for batch in self.parts[0]),
            name=layer.name,
            held_out_gram=held_out[0].gram if held_out else None,
        )
        known = LayerInputs(seen.gram, extra, output_energy(weight.to(self.device), seen.gram))
        mask = self.choose(layer, weight, seen.gram)
        refined = refine_layer(
            layer, weight, known, mask, self.patterns[layer.name], self.settings, losses.add, self.device, self.compute
        )
        return refined if correction is None else refined.with_weight(weight)

    def _apply(self, layers: Iterable[Layer], refined: RefinedBlock) -> None:
        apply_pruned(self.forward.model, tuple(layers), refined.pruned)


def load_on_the_fly(
    folder: Path,
    dtype: str,
    calibration: Calibration,
    pattern: Pattern,
    warmstart: MethodSettings,
    settings: MethodSettings,
    machine: Machine,
) -> OnTheFlyRefinement:
    """Load a model for refinement on the fly, at its first block.

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

    batches, parts = in_batches(calibration.windows(), calibration.settings.batch)
    share = calibration.settings.dense_target
    index, patterns = calibration.index, stored_patterns(folder, calibration, pattern)
    runs_on, refines_on = torch.device(machine.device), torch.device(machine.refining_device)
    model = load_model(folder, dtype, "cpu")
    stream = partial(BlockwiseForward, model, index.block_list, batches, runs_on, machine.state_bytes)
    return OnTheFlyRefinement(
        forward=stream(),
        index=index,
        weight=partial(read_weight, folder),
        parts=parts,
        choose=chooser(index.layers, patterns, warmstart, refines_on, calibration.provenance["model"]),
        patterns=patterns,
        settings=settings,
        inputs=calibration.inputs,
        gram_bytes=machine.gram_bytes,
        min_tokens=calibration.settings.min_tokens,
        device=refines_on,
        compute=machine.compute,
        targets=DenseTargets(stream(), parts[0], share) if share else None,
    )
