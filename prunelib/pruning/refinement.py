"""A whole model through a refiner, or a chain of them: block by block, from weights and Gram matrices on disk."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prunelib import store
from prunelib.ahead import read_ahead
from prunelib.calibration.artifact import Calibration
from prunelib.masks.budgets import patterns_of
from prunelib.masks.patterns import Pattern
from prunelib.masks.pruned import Pruned, read_pruned, write_pruned
from prunelib.model.layers import Layer
from prunelib.model.weights import check_masks, read_weight
from prunelib.progress import Meter
from prunelib.pruning.chains import Step, outcome, run_chain
from prunelib.results import LayerResult, StepResult, read_layers, write_layers

_PRUNED, _RECORDS, _SECONDS = "pruned", "layers.json", "seconds.json"


class RefinedBlock(NamedTuple):
    """One decoder block after refinement: its masks and moved weights, its layers' records, and each step's seconds."""

    pruned: Pruned
    records: list[LayerResult]
    step_seconds: list[float]


class FinishedBlocks:
    """Refined blocks in a folder where a later run finds them (:mod:`prunelib.resume`).

    Parameters
    ----------
    folder
        The folder.
    provenance
        What all blocks were made from.
    """

    def __init__(self, folder: Path, provenance: Mapping[str, str]) -> None:
        self._folder, self._provenance = folder, provenance

    def __contains__(self, block: int) -> bool:
        return self._part(block).exists()

    def write(self, block: int, refined: RefinedBlock) -> RefinedBlock:
        """Write a block, whole or not at all, and read it back."""
        with store.replacing_folder(self._part(block)) as target:
            write_pruned(target / _PRUNED, refined.pruned, self._provenance)
            write_layers(target / _RECORDS, refined.records)
            store.write_json(target / _SECONDS, refined.step_seconds)
        return self.read(block)

    def read(self, block: int) -> RefinedBlock:
        """Read a block; its masks and weights stay on disk."""
        part = self._part(block)
        pruned, records = read_pruned(part / _PRUNED, self._provenance), read_layers(part / _RECORDS)
        return RefinedBlock(pruned, records, store.read_json(part / _SECONDS))

    def _part(self, block: int) -> Path:
        return self._folder / f"block_{block:03d}"


class LayerInputs(NamedTuple):
    """What is known of a layer's inputs.

    Attributes
    ----------
    gram
        (inputs, inputs) float32, sum over tokens.
    statistics
        What refiners may ask for beyond it (:attr:`prunelib.pruning.registry.About.extras`).
    energy
        ||W X||^2.
    """

    gram: torch.Tensor
    statistics: Mapping[str, Any]
    energy: float


class RefinedLayer(NamedTuple):
    """``mask`` (rows, inputs) bool; ``weight`` (rows, inputs) in the model's dtype where kept weights have moved."""

    mask: torch.Tensor
    weight: torch.Tensor | None
    record: LayerResult
    step_seconds: list[float]


def refine_blocks(
    folder: Path,
    calibration: Calibration,
    masks: Mapping[str, torch.Tensor],
    pattern: Pattern,
    settings: Any,
    device: torch.device,
    finished: FinishedBlocks,
    bar: Meter,
) -> Iterator[RefinedBlock]:
    """Refine the masks of every layer, in the order of the layer index; what is yielded stays on disk.

    Parameters
    ----------
    folder
        The model.
    masks
        Layer name to (rows, inputs) bool, True = kept.
    settings
        Of one method in :mod:`prunelib.refiners`, or a :class:`prunelib.pruning.chains.Chain`.
    device
        Where the work is done.
    finished
        Where blocks are written, and from where those that are there already are taken.
    bar
        Counts rows, once a step.
    """
    check_masks(calibration.index.layers, masks)
    patterns, losses = patterns_of(masks, pattern), Losses(bar)

    def read(layer: Layer) -> tuple[Layer, torch.Tensor, LayerInputs]:
        inputs = LayerInputs(calibration.gram(layer), calibration.statistics(layer), calibration.energies[layer.name])
        return layer, read_weight(folder, layer), inputs

    for block in range(calibration.index.blocks):
        if block in finished:
            refined = finished.read(block)
            losses.add_finished(refined)
        else:
            layers = [
                refine_layer(layer, weight, inputs, masks[layer.name], patterns[layer.name], settings, losses, device)
                for layer, weight, inputs in read_ahead(read, calibration.index.of_block(block))
            ]
            refined = finished.write(block, together(layers))
        yield refined


def refine_layer(
    layer: Layer,
    weight: torch.Tensor,
    inputs: LayerInputs,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: Any,
    losses: "Losses",
    device: torch.device,
) -> RefinedLayer:
    """Refine the mask (rows, inputs) of one layer on a device; what comes back is on the processor."""
    steps = run_chain(weight.to(device), inputs.gram, mask.to(device), pattern, settings, losses.add, inputs.statistics)
    moved = steps[-1].refined.weight
    return RefinedLayer(
        mask=steps[-1].refined.mask.cpu(),
        weight=None if moved is None else moved.to("cpu", weight.dtype),
        record=_record(layer, steps, inputs),
        step_seconds=[step.seconds for step in steps],
    )


def together(layers: Sequence[RefinedLayer]) -> RefinedBlock:
    """The layers of a block as one."""
    masks = {layer.record.name: layer.mask for layer in layers}
    weights = {layer.record.name: layer.weight for layer in layers if layer.weight is not None}
    seconds = [sum(of_step) for of_step in zip(*(layer.step_seconds for layer in layers), strict=True)]
    return RefinedBlock(Pruned(masks, weights), [layer.record for layer in layers], seconds)


class Losses:
    """Sums of the losses of all rows so far, and the bar that shows them."""

    def __init__(self, bar: Meter) -> None:
        self._bar, self._before, self._after = bar, 0.0, 0.0

    def add_finished(self, block: RefinedBlock) -> None:
        """Add the layers of a block that an earlier run has finished."""
        for layer in block.records:
            self.add(len(block.step_seconds) * layer.rows, layer.loss_before, layer.loss_after)

    def add(self, rows: int, loss_before: float, loss_after: float) -> None:
        """Add rows, as a :data:`prunelib.pruning.refined.Progress`."""
        self._before += loss_before
        self._after += loss_after
        reduction = 1 - self._after / self._before if self._before else 0.0
        self._bar.advance(rows, f"error {self._before:.4g} -> {self._after:.4g} (-{100 * reduction:.1f}%)")


def _record(layer: Layer, steps: Sequence[Step], inputs: LayerInputs) -> LayerResult:
    result = outcome(steps)
    return LayerResult(
        name=layer.name,
        kind=layer.kind,
        block=layer.block,
        rows=layer.rows,
        inputs=layer.inputs,
        kept=int(result.mask.sum()),
        loss_before=float(result.loss_before.sum()),
        loss_after=float(result.loss_after.sum()),
        energy=inputs.energy,
        tokens=None if layer.fused is None else inputs.statistics["tokens"],
        moved=result.weight is not None,
        steps=tuple(StepResult(method=step.method, loss_after=float(step.refined.loss_after.sum())) for step in steps),
        swaps=_total(result.swaps),
        sweeps=_total(result.sweeps),
        optimal_rows=_total(result.optimal),
        bound=result.bound,
    )


def _total(of_rows: torch.Tensor | None) -> int | None:
    return None if of_rows is None else int(of_rows.sum())
