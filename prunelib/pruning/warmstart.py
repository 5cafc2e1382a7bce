"""A whole model through a warm start: layer by layer, from weights and Gram matrices on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from prunelib import warmstarts
from prunelib.calibration.artifact import Calibration
from prunelib.errors import PatternError
from prunelib.masks.packed import PackedMasks
from prunelib.masks.patterns import Pattern, check_mask, select
from prunelib.methods import registry
from prunelib.model.layers import Layer
from prunelib.model.weights import read_weight
from prunelib.pruning.budgets import layer_patterns
from prunelib.runtime.prefetch import read_ahead

Choose = Callable[[Layer, torch.Tensor, torch.Tensor], torch.Tensor]
"""From a layer, its weight (rows, inputs) and Gram matrix (inputs, inputs) to the mask (rows, inputs) bool of a warm
start, on the processor."""


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
    patterns = layer_patterns(folder, calibration, pattern)
    if (given := _given(calibration, patterns, settings)) is not None:
        return given
    choose = chooser(calibration, patterns, settings, device)

    def read(layer: Layer) -> tuple[Layer, torch.Tensor, torch.Tensor]:
        return layer, read_weight(folder, layer), calibration.gram(layer)

    known = read_ahead(read, calibration.index.layers)
    return PackedMasks.joined(PackedMasks.of({layer.name: choose(layer, *tensors)}) for layer, *tensors in known)


def chooser(calibration: Calibration, patterns: Mapping[str, Pattern], settings: Any, device: torch.device) -> Choose:
    """A warm start as a function of a layer.

    Parameters and errors as :func:`warmstart_masks`; ``patterns`` has that of each layer.
    """
    if (given := _given(calibration, patterns, settings)) is not None:
        return lambda layer, _weight, _gram: given[layer.name]
    method = registry.methods(warmstarts)[settings.method]

    def choose(layer: Layer, weight: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
        try:
            return layer_mask(method, weight.to(device), gram.to(device), patterns[layer.name], settings).cpu()
        except PatternError as error:
            raise PatternError(f"{layer.name}: {error}") from None

    return choose


def _given(
    calibration: Calibration, patterns: Mapping[str, Pattern], settings: Any
) -> Mapping[str, torch.Tensor] | None:
    """The masks of a warm start that looks at no layer."""
    method = registry.methods(warmstarts)[settings.method]
    if not hasattr(method, "masks"):
        return None
    masks: Mapping[str, torch.Tensor] = method.masks(
        settings, calibration.index.layers, patterns, calibration.provenance["model"]
    )
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
