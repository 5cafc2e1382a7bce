"""A whole model through a refiner, or a chain of them: layer by layer, from weights and Gram matrices on disk."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prunelib.ahead import read_ahead
from prunelib.calibration import Calibration
from prunelib.chains import Step, outcome, run_chain
from prunelib.layers import Layer
from prunelib.patterns import Pattern
from prunelib.progress import Meter
from prunelib.results import LayerResult, StepResult
from prunelib.weights import check_masks, read_weight


class RefinedLayer(NamedTuple):
    """One layer after refinement.

    ``mask`` (rows, inputs) bool; ``weight`` (rows, inputs) where kept weights have moved, in the dtype of the model's,
    else None; ``record``; ``step_seconds``, one for each step.
    """

    mask: torch.Tensor
    weight: torch.Tensor | None
    record: LayerResult
    step_seconds: list[float]


def refine_layers(
    folder: Path,
    calibration: Calibration,
    masks: Mapping[str, torch.Tensor],
    pattern: Pattern,
    settings: Any,
    bar: Meter,
    device: torch.device,
) -> Iterator[RefinedLayer]:
    """Refine the masks of every layer, in the order of the layer index; the next one is read meanwhile.

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
        Where the work is done; what comes back is on the processor.
    """
    check_masks(calibration.index.layers, masks)
    losses = _Losses(bar)

    def read(layer: Layer) -> tuple[Layer, torch.Tensor, torch.Tensor, dict[str, Any]]:
        return layer, read_weight(folder, layer), calibration.gram(layer), calibration.statistics(layer)

    for layer, weight, gram, statistics in read_ahead(read, calibration.index.layers):
        mask = masks[layer.name].to(device)
        steps = run_chain(weight.to(device), gram, mask, pattern, settings, losses.add, statistics)
        moved = steps[-1].refined.weight
        yield RefinedLayer(
            mask=steps[-1].refined.mask.cpu(),
            weight=None if moved is None else moved.to("cpu", weight.dtype),
            record=_record(layer, steps, calibration.energies[layer.name]),
            step_seconds=[step.seconds for step in steps],
        )


class _Losses:
    """Sums of the losses of all rows so far, and the bar that shows them."""

    def __init__(self, bar: Meter) -> None:
        self._bar, self._before, self._after = bar, 0.0, 0.0

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
