"""A whole model through a refiner, or a chain of them: block by block, from weights and Gram matrices on disk."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prunelib import store
from prunelib.ahead import read_ahead
from prunelib.calibration import Calibration
from prunelib.chains import Step, outcome, run_chain
from prunelib.layers import Layer
from prunelib.patterns import Pattern
from prunelib.progress import Meter
from prunelib.pruned import Pruned, read_pruned, write_pruned
from prunelib.results import LayerResult, StepResult, read_layers, write_layers
from prunelib.weights import check_masks, read_weight

_PRUNED, _RECORDS, _SECONDS = "pruned", "layers.json", "seconds.json"


class RefinedBlock(NamedTuple):
    """One decoder block after refinement: its masks and moved weights, its layers' records, and each step's seconds."""

    pruned: Pruned
    records: list[LayerResult]
    step_seconds: list[float]


def refine_blocks(
    folder: Path,
    calibration: Calibration,
    masks: Mapping[str, torch.Tensor],
    pattern: Pattern,
    settings: Any,
    bar: Meter,
    device: torch.device,
    parts: Path,
) -> Iterator[RefinedBlock]:
    """Refine the masks of every layer, in the order of the layer index; what is yielded stays on disk.

    Parameters
    ----------
    folder
        The model.
    masks
        Layer name to (rows, inputs) bool, True = kept.
    settings
        Of one method in :mod:`prunelib.refiners`, or a :class:`prunelib.chains.Chain`.
    bar
        Counts rows, once a step.
    device
        Where the work is done.
    parts
        A folder where finished blocks are written, and from where those that are there already are taken
        (:mod:`prunelib.resume`).
    """
    check_masks(calibration.index.layers, masks)
    losses = _Losses(bar)
    for block in range(calibration.index.blocks):
        part, layers = parts / f"block_{block:03d}", calibration.index.of_block(block)
        if part.exists():
            finished = _read(part, calibration.provenance)
            losses.add_finished(finished.records, len(finished.step_seconds))
        else:
            refined = _refine(folder, calibration, layers, masks, pattern, settings, losses, device)
            _write(part, _together(list(refined)), calibration.provenance)
        yield _read(part, calibration.provenance)


class _RefinedLayer(NamedTuple):
    """``mask`` (rows, inputs) bool; ``weight`` (rows, inputs) in the model's dtype where kept weights have moved."""

    mask: torch.Tensor
    weight: torch.Tensor | None
    record: LayerResult
    step_seconds: list[float]


def _refine(
    folder: Path,
    calibration: Calibration,
    layers: Sequence[Layer],
    masks: Mapping[str, torch.Tensor],
    pattern: Pattern,
    settings: Any,
    losses: "_Losses",
    device: torch.device,
) -> Iterator[_RefinedLayer]:
    """Refine the layers of one block; the next one is read while this one is worked on."""

    def read(layer: Layer) -> tuple[Layer, torch.Tensor, torch.Tensor, dict[str, Any]]:
        return layer, read_weight(folder, layer), calibration.gram(layer), calibration.statistics(layer)

    for layer, weight, gram, statistics in read_ahead(read, layers):
        mask = masks[layer.name].to(device)
        steps = run_chain(weight.to(device), gram, mask, pattern, settings, losses.add, statistics)
        moved = steps[-1].refined.weight
        yield _RefinedLayer(
            mask=steps[-1].refined.mask.cpu(),
            weight=None if moved is None else moved.to("cpu", weight.dtype),
            record=_record(layer, steps, calibration.energies[layer.name]),
            step_seconds=[step.seconds for step in steps],
        )


def _together(layers: Sequence[_RefinedLayer]) -> RefinedBlock:
    masks = {layer.record.name: layer.mask for layer in layers}
    weights = {layer.record.name: layer.weight for layer in layers if layer.weight is not None}
    seconds = [sum(of_step) for of_step in zip(*(layer.step_seconds for layer in layers), strict=True)]
    return RefinedBlock(Pruned(masks, weights), [layer.record for layer in layers], seconds)


def _write(part: Path, block: RefinedBlock, provenance: Mapping[str, str]) -> None:
    with store.replacing_folder(part) as target:
        write_pruned(target / _PRUNED, block.pruned, provenance)
        write_layers(target / _RECORDS, block.records)
        store.write_json(target / _SECONDS, block.step_seconds)


def _read(part: Path, provenance: Mapping[str, str]) -> RefinedBlock:
    pruned, records = read_pruned(part / _PRUNED, provenance), read_layers(part / _RECORDS)
    return RefinedBlock(pruned, records, store.read_json(part / _SECONDS))


class _Losses:
    """Sums of the losses of all rows so far, and the bar that shows them."""

    def __init__(self, bar: Meter) -> None:
        self._bar, self._before, self._after = bar, 0.0, 0.0

    def add_finished(self, layers: Sequence[LayerResult], steps: int) -> None:
        """Add layers that an earlier run has finished."""
        for layer in layers:
            self.add(steps * layer.rows, layer.loss_before, layer.loss_after)

    def add(self, rows: int, loss_before: float, loss_after: float) -> None:
        self._before += loss_before
        self._after += loss_after
        reduction = 1 - self._after / self._before if self._before else 0.0
        self._bar.advance(rows, f"error {self._before:.4g} -> {self._after:.4g} (-{100 * reduction:.1f}%)")


def _record(layer: Layer, steps: Sequence[Step], energy: float) -> LayerResult:
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
        energy=energy,
        moved=result.weight is not None,
        steps=tuple(StepResult(method=step.method, loss_after=float(step.refined.loss_after.sum())) for step in steps),
        swaps=_total(result.swaps),
        sweeps=_total(result.sweeps),
        optimal_rows=_total(result.optimal),
        bound=result.bound,
    )


def _total(of_rows: torch.Tensor | None) -> int | None:
    return None if of_rows is None else int(of_rows.sum())
