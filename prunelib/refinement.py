"""A whole model through a refiner: layer by layer, from weights and Gram matrices on disk."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prunelib import refiners, registry
from prunelib.calibration import Calibration
from prunelib.layers import Layer
from prunelib.patterns import Pattern
from prunelib.progress import Meter
from prunelib.refined import Refined
from prunelib.results import LayerResult
from prunelib.weights import check_masks, read_weight


def refine_masks(
    folder: Path,
    calibration: Calibration,
    masks: Mapping[str, torch.Tensor],
    pattern: Pattern,
    settings: Any,
    bar: Meter,
) -> tuple[dict[str, torch.Tensor], list[LayerResult], float]:
    """Refine the masks of every layer.

    Parameters
    ----------
    folder
        The model.
    masks
        Layer name to (rows, inputs) bool, True = kept.
    settings
        Of one method in :mod:`prunelib.refiners`.
    bar
        Counts rows.

    Returns
    -------
    tuple
        The refined masks, a record for each layer, and the seconds spent in the refiner itself.
    """
    check_masks(calibration.index.layers, masks)
    refine = registry.methods(refiners)[settings.method].refine
    refined, records, seconds = {}, [], 0.0
    losses = _Losses(bar)
    for layer in calibration.index.layers:
        weight, gram = read_weight(folder, layer), calibration.gram(layer)
        started = time.perf_counter()
        result = refine(weight, gram, masks[layer.name], pattern, settings, losses.add)
        seconds += time.perf_counter() - started
        refined[layer.name] = result.mask
        records.append(_record(layer, result, calibration.energies[layer.name]))
    return refined, records, seconds


class _Losses:
    """Sums of the losses of all rows so far, and the bar that shows them."""

    def __init__(self, bar: Meter) -> None:
        self._bar, self._before, self._after = bar, 0.0, 0.0

    def add(self, rows: int, loss_before: float, loss_after: float) -> None:
        self._before += loss_before
        self._after += loss_after
        reduction = 1 - self._after / self._before if self._before else 0.0
        self._bar.advance(rows, f"error {self._before:.4g} -> {self._after:.4g} (-{100 * reduction:.1f}%)")


def _record(layer: Layer, result: Refined, energy: float) -> LayerResult:
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
        swaps=_total(result.swaps),
        sweeps=_total(result.sweeps),
        optimal_rows=_total(result.optimal),
    )


def _total(of_rows: torch.Tensor | None) -> int | None:
    return None if of_rows is None else int(of_rows.sum())
