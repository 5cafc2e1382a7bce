"""Refinement of a whole model, block by block, from weights and Gram matrices on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from prunelib.calibration.artifact import Calibration
from prunelib.masks.packed import read_masks
from prunelib.masks.patterns import Pattern, patterns_of
from prunelib.masks.pruned import Pruned, read_pruned, write_pruned
from prunelib.methods.contract import ExtraInputs, MethodSettings, Progress, silent
from prunelib.model.layers import Layer
from prunelib.model.weights import read_weight
from prunelib.pruning.chains import Step, outcome, run_chain
from prunelib.pruning.warm_up import warm_up
from prunelib.records import BlockResult, LayerResult, StepResult, read_blocks, read_layers, write_layers
from prunelib.runtime import atomic, store
from prunelib.runtime.compute import AUTO, Compute
from prunelib.runtime.load import Load, OnDone
from prunelib.runtime.machine import machine, peak_memory
from prunelib.runtime.prefetch import read_ahead
from prunelib.runtime.progress import Meter
from prunelib.runtime.resume import FinishedParts
from prunelib.runtime.tasks import run_tasks

_PRUNED, _RECORDS, _COST = "pruned", "layers.json", "cost.json"
_COST_KIND = "cost"
_COSTS = ("seconds", "peak_bytes", "reconstruction_seconds")


class RefinedBlock(NamedTuple):
    """One refined decoder block: its masks and updated weights, its layers' records, time and memory.

    ``seconds`` is the time of each layer in each step of a chain, ``peak_bytes`` the peak memory of the process.
    ``reconstruction`` is what the refiner of whole blocks measured, if there was one, and how long it took.
    """

    pruned: Pruned
    records: list[LayerResult]
    seconds: list[list[float]]
    peak_bytes: int
    reconstruction: BlockResult | None = None
    reconstruction_seconds: float = 0.0

    @property
    def step_seconds(self) -> list[float]:
        """The time of each step: of those over all layers, and of the reconstruction."""
        seconds = [sum(of_step) for of_step in zip(*self.seconds, strict=True)]
        return [*seconds, self.reconstruction_seconds] if self.reconstruction else seconds


class Cost(NamedTuple):
    """What refinement took: seconds of each step of a chain, and the largest peak memory of its processes in bytes."""

    step_seconds: list[float]
    peak_bytes: int


class FinishedBlocks(FinishedParts[int, RefinedBlock]):
    """Refined blocks, a folder each.

    Parameters
    ----------
    provenance
        The inputs from which all blocks are made.
    """

    def __init__(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self._provenance = provenance

    def path(self, part: int) -> Path:
        """Return the folder of a block."""
        return self.folder / f"block_{part:03d}"

    def write(self, part: int, value: RefinedBlock) -> None:
        """Write a block atomically."""
        with atomic.replacing_folder(self.path(part)) as target:
            write_pruned(target / _PRUNED, value.pruned, self._provenance)
            write_layers(target / _RECORDS, value.records, self._provenance, reconstructions([value]))
            cost = {field: getattr(value, field) for field in _COSTS}
            store.write_record(target / _COST, _COST_KIND, cost)

    def read(self, part: int) -> RefinedBlock:
        """Read a block; its masks and weights stay on disk."""
        folder = self.path(part)
        pruned = read_pruned(folder / _PRUNED, self._provenance)
        records = read_layers(folder / _RECORDS, self._provenance)
        blocks = read_blocks(folder / _RECORDS, self._provenance)
        cost = store.read_record(folder / _COST, _COST_KIND)
        return RefinedBlock(pruned, records, **cost, reconstruction=blocks[0] if blocks else None)


class Blocks(Protocol):
    """Refined blocks: those of an earlier run, and destination of new ones."""

    def find(self, part: int) -> RefinedBlock | None:
        """Return a block; None if it is not refined."""
        ...

    def write(self, part: int, value: RefinedBlock) -> None:
        """Write a block completely or not at all."""
        ...

    def read(self, part: int) -> RefinedBlock:
        """Return a block that has been written."""
        ...


class LayerInputs(NamedTuple):
    """Statistics of a layer's inputs.

    Attributes
    ----------
    gram
        (inputs, inputs) float32, sum over tokens.
    extra
        Further statistics that refiners may use.
    energy
        ||W X||^2.
    """

    gram: torch.Tensor
    extra: ExtraInputs
    energy: float


class RefinedLayer(NamedTuple):
    """One refined layer.

    ``mask`` is (rows, inputs) bool; ``weight`` is (rows, inputs) in the model's dtype, None if no weight was updated.
    """

    mask: torch.Tensor
    weight: torch.Tensor | None
    record: LayerResult
    step_seconds: list[float]


@dataclass(frozen=True)
class BlockRefinement:
    """The refinement of a cell's blocks from Gram matrices on disk, one task per block (:mod:`prunelib.runtime.tasks`).

    Attributes
    ----------
    folder
        The model.
    masks, start
        The file of the masks to refine, and its expected provenance.
    pattern
        The pattern of these masks.
    settings
        Those of one method in :mod:`prunelib.refiners`, or a :class:`prunelib.pruning.chains.Chain`.
    finished
        The refined blocks; new ones are written there.
    progress
        Called as rows are finished, once per step.
    """

    folder: Path
    calibration: Calibration
    masks: Path
    start: Mapping[str, Any]
    pattern: Pattern
    settings: MethodSettings
    finished: FinishedBlocks
    progress: Progress = silent

    def __call__(self, block: int) -> int:
        """Refine the layers of a block, write the block, and return its number."""
        layers, device = self.calibration.index.of_block(block), torch.device(machine().refining_device)
        compute = machine().compute
        warm_up(self.settings, self.pattern, device, {layer.inputs for layer in layers}, compute=compute)
        masks = read_masks(self.masks, self.start, {layer.name for layer in layers})
        patterns = patterns_of(masks, self.pattern)

        def refine(layer: Layer, weight: torch.Tensor, inputs: LayerInputs) -> RefinedLayer:
            mask, pattern = masks[layer.name], patterns[layer.name]
            return refine_layer(layer, weight, inputs, mask, pattern, self.settings, self.progress, device, compute)

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


def refine_layer(
    layer: Layer,
    weight: torch.Tensor,
    inputs: LayerInputs,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: MethodSettings,
    progress: Progress,
    device: torch.device,
    compute: Compute = AUTO,
) -> RefinedLayer:
    """Refine the mask (rows, inputs) of one layer on ``device``; the result is on the CPU."""
    start = (weight.to(device), inputs.gram, mask.to(device))
    steps = run_chain(*start, pattern, settings, progress, inputs.extra, compute)
    updated = steps[-1].refined.weight
    return RefinedLayer(
        mask=steps[-1].refined.mask.cpu(),
        weight=None if updated is None else updated.to("cpu", weight.dtype),
        record=_record(layer, steps, inputs),
        step_seconds=[step.seconds for step in steps],
    )


def block_of(layers: Sequence[RefinedLayer]) -> RefinedBlock:
    """Combine the refined layers of a block."""
    masks = {layer.record.name: layer.mask for layer in layers}
    weights = {layer.record.name: layer.weight for layer in layers if layer.weight is not None}
    seconds = [layer.step_seconds for layer in layers]
    return RefinedBlock(Pruned(masks, weights), [layer.record for layer in layers], seconds, peak_memory())


def reconstructions(blocks: Sequence[RefinedBlock]) -> list[BlockResult]:
    """Return what the refiner of whole blocks measured; empty if there was none."""
    return [block.reconstruction for block in blocks if block.reconstruction]


def cost_of(blocks: Sequence[RefinedBlock]) -> Cost:
    """Return what the refinement of all blocks took."""
    seconds = [sum(of_step) for of_step in zip(*(block.step_seconds for block in blocks), strict=True)]
    return Cost(seconds, max(block.peak_bytes for block in blocks))


class Losses:
    """Running sums of the losses of all rows, shown in a progress bar."""

    def __init__(self, bar: Meter) -> None:
        self._bar, self._before, self._after, self._load = bar, 0.0, 0.0, ""

    def add_finished(self, block: RefinedBlock) -> None:
        """Add the layers of a finished block."""
        for layer in block.records:
            self.add(len(block.step_seconds) * layer.rows, layer.loss_before, layer.loss_after)

    def add_from(self, finished: FinishedBlocks) -> OnDone[int]:
        """Return a callback that adds a block finished by a worker, given its number."""

        def add(block: int, load: Load) -> None:
            self._load = f", {load}"
            self.add_finished(finished.read(block))

        return add

    def add(self, rows: int, loss_before: float, loss_after: float) -> None:
        """Add rows; a :data:`prunelib.methods.contract.Progress`."""
        self._before += loss_before
        self._after += loss_after
        change = self._after / self._before - 1 if self._before else 0.0
        sign = "+" if change > 0 else ""
        self._bar.advance(rows, f"error {self._before:.4g} -> {self._after:.4g} ({sign}{change:z.1%}){self._load}")


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
        tokens=None if layer.fused is None else inputs.extra.tokens,
        updated=result.weight is not None,
        steps=tuple(StepResult(method=step.method, loss_after=float(step.refined.loss_after.sum())) for step in steps),
        swaps=_total(result.swaps),
        sweeps=_total(result.sweeps),
        optimal_rows=_total(result.optimal),
        bound=result.bound,
    )


def _total(of_rows: torch.Tensor | None) -> int | None:
    return None if of_rows is None else int(of_rows.sum())
