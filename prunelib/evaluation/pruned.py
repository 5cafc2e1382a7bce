"""A pruned model in memory, verified against the stock weights, and the pruning errors of its layers in two figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from prunelib.results import LayerResult
from prunelib.weights import apply_masks, check_zeros

if TYPE_CHECKING:
    import torch
    from torch import nn

    from prunelib.layers import Layer


def prune(model: "nn.Module", layers: tuple["Layer", ...], masks: Mapping[str, "torch.Tensor"], stock: Path) -> None:
    """Put masks on a model in place, and check that it then holds the stock weights under these masks alone.

    Parameters
    ----------
    masks
        Layer name to (rows, inputs) bool, True = kept: one for each layer.
    stock
        The folder that the model was loaded from.

    Raises
    ------
    PatternError
        If the masks do not fit the layers; no weight has been changed then.
    ModelError
        If a kept weight is not that of the folder.
    """
    apply_masks(model, layers, masks)
    check_zeros(model, layers, masks, stock)


def mean_errors(layers: Sequence[LayerResult]) -> dict[str, float]:
    """``relative_error`` and ``error_reduction`` of :class:`prunelib.results.CellResult`: every layer counts alike."""
    return {
        "relative_error": fmean(layer.relative_error for layer in layers),
        "error_reduction": fmean(layer.error_reduction for layer in layers),
    }
