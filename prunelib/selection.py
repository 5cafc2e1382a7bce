"""A whole model through a warm start: layer by layer, from weights and Gram matrices on disk."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from prunelib import registry, warmstarts
from prunelib.ahead import read_ahead
from prunelib.calibration import Calibration
from prunelib.errors import PatternError
from prunelib.layers import Layer
from prunelib.patterns import Pattern, check_mask, select
from prunelib.weights import read_weight


def warmstart_masks(
    folder: Path, calibration: Calibration, pattern: Pattern, settings: Any, device: torch.device
) -> Mapping[str, torch.Tensor]:
    """Masks (rows, inputs) bool by layer name: the weights that a warm start keeps.

    Parameters
    ----------
    folder
        The model.
    settings
        Of one method in :mod:`prunelib.warmstarts`.
    device
        Where the work is done; the masks are on the processor.

    Raises
    ------
    PatternError
        Naming the layer that the pattern does not fit.
    """
    method = registry.methods(warmstarts)[settings.method]
    layers = calibration.index.layers
    if hasattr(method, "masks"):
        given: Mapping[str, torch.Tensor] = method.masks(settings, layers, pattern, calibration.provenance["model"])
        return given
    masks = {}

    def read(layer: Layer) -> tuple[Layer, torch.Tensor, torch.Tensor]:
        return layer, read_weight(folder, layer), calibration.gram(layer)

    for layer, weight, gram in read_ahead(read, layers):
        try:
            masks[layer.name] = layer_mask(method, weight.to(device), gram.to(device), pattern, settings).cpu()
        except PatternError as error:
            raise PatternError(f"{layer.name}: {error}") from None
    return masks


def layer_mask(
    method: ModuleType, weight: torch.Tensor, gram: torch.Tensor, pattern: Pattern, settings: Any
) -> torch.Tensor:
    """The mask (rows, inputs) bool of one layer, with the exact counts of the pattern.

    Parameters
    ----------
    method
        A module of :mod:`prunelib.warmstarts` with ``choose`` or ``saliency``.
    weight, gram
        (rows, inputs) and (inputs, inputs).
    settings
        Of the method.

    Raises
    ------
    NumericalError
        If a score is NaN.
    PatternError
        If the pattern does not fit the weight.
    """
    if hasattr(method, "choose"):
        mask: torch.Tensor = method.choose(weight, gram, pattern, settings)
    else:
        mask = select(method.saliency(weight, gram, settings), pattern)
    check_mask(mask, weight, pattern)
    return mask
