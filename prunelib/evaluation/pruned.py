"""Pruning of a model in memory, with verification, and summary figures of its layers' pruning errors."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from prunelib.masks.pruned import Pruned
from prunelib.model.weights import apply_pruned, check_pruned
from prunelib.records import BlockResult, LayerResult, optimality_gap

if TYPE_CHECKING:
    from torch import nn

    from prunelib.model.layers import Layer


def apply_and_check(model: "nn.Module", layers: tuple["Layer", ...], pruned: Pruned, dense: Path) -> None:
    """Prune a model in place, and check that it then contains exactly the masked weights.

    Parameters
    ----------
    pruned
        Masks (rows, inputs) for every layer, and the updated weights of some layers.
    dense
        The folder that the model was loaded from.

    Raises
    ------
    PatternError
        If the masks do not fit the layers; no weight is changed then.
    ModelError
        If a pruned weight is not +0.0, or a kept weight differs from the expected one.
    """
    apply_pruned(model, layers, pruned)
    check_pruned(model, layers, pruned.masks, dense, pruned.weights)


def mean_errors(layers: Sequence[LayerResult], blocks: Sequence[BlockResult] = ()) -> dict[str, float]:
    """Return the errors of :class:`prunelib.records.CellResult`, and optimality gaps if all have valid bounds.

    Of a cell whose blocks were reconstructed, only the error of its blocks.
    """
    if blocks:
        return {"block_error": fmean(block.error_after for block in blocks)}
    errors = {
        "relative_error": fmean(layer.relative_error for layer in layers),
        "error_reduction": fmean(layer.error_reduction for layer in layers),
    }
    bounds = [layer.bound for layer in layers if layer.bound is not None and not layer.updated]
    if len(bounds) < len(layers):
        return errors
    losses = [layer.loss_after for layer in layers]
    total = optimality_gap([sum(losses)], [sum(bounds)])
    return {**errors, "optimality_gap": optimality_gap(losses, bounds), "optimality_gap_total": total}
