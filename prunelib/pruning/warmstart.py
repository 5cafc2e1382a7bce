"""Warm start of a whole model, layer by layer, from weights and Gram matrices on disk."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prunelib import warmstarts
from prunelib.calibration.artifact import Calibration
from prunelib.errors import PatternError
from prunelib.masks.packed import PackedMasks
from prunelib.masks.patterns import Pattern
from prunelib.methods import registry
from prunelib.methods.contract import MethodSettings
from prunelib.model.layers import Layer
from prunelib.model.weights import read_weight, shapes_of
from prunelib.pruning.budgets import stored_patterns
from prunelib.runtime.prefetch import read_ahead

if TYPE_CHECKING:  # the members of this union are discovered at run time
    AnyWarmStart = MethodSettings
else:
    AnyWarmStart = registry.any_settings(warmstarts)

Choose = Callable[[Layer, torch.Tensor, torch.Tensor], torch.Tensor]
"""A warm start: maps a layer, its weight (rows, inputs) and its Gram matrix (inputs, inputs) to a mask (rows, inputs)
bool on the CPU."""


def warmstart_masks(
    folder: Path, calibration: Calibration, pattern: Pattern, settings: MethodSettings, device: torch.device
) -> Mapping[str, torch.Tensor]:
    """Return the masks (rows, inputs) bool of a warm start, by layer name.

    None with sequential calibration inputs: there the masks of a block depend on the pruning of those before it, and
    the refine stage chooses them.

    Parameters
    ----------
    folder
        The model.
    settings
        Those of one method in :mod:`prunelib.warmstarts`.
    device
        The device that computes the masks; the masks returned are on the CPU.

    Raises
    ------
    PatternError
        If the pattern does not fit a layer; the message names the layer.
    """
    if not calibration.inputs.shared:
        return {}
    patterns = stored_patterns(folder, calibration, pattern)
    layers, model = calibration.index.layers, calibration.provenance["model"]
    if (given := _given(layers, patterns, settings, model)) is not None:
        return given
    choose = chooser(layers, patterns, settings, device, model)

    def read(layer: Layer) -> tuple[Layer, torch.Tensor, torch.Tensor]:
        return layer, read_weight(folder, layer), calibration.gram(layer)

    known = read_ahead(read, layers)
    return PackedMasks.joined(PackedMasks.of({layer.name: choose(layer, *tensors)}) for layer, *tensors in known)


def chooser(
    layers: Sequence[Layer],
    patterns: Mapping[str, Pattern],
    settings: MethodSettings,
    device: torch.device,
    model: str | None,
) -> Choose:
    """Return a warm start as a function of a layer.

    Parameters and errors: :func:`warmstart_masks`.

    Parameters
    ----------
    layers
        All layers of the model.
    patterns
        The pattern of each layer by name.
    model
        The model's identity, which masks in a file must have; None: it is not known.
    """
    if (given := _given(layers, patterns, settings, model)) is not None:
        return lambda layer, _weight, _gram: given[layer.name]
    method = registry.warmstart(warmstarts, settings)

    def choose(layer: Layer, weight: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
        try:
            return method.layer_mask(weight.to(device), gram.to(device), patterns[layer.name], settings).cpu()
        except PatternError as error:
            raise PatternError(f"{layer.name}: {error}") from None

    return choose


def _given(
    layers: Sequence[Layer], patterns: Mapping[str, Pattern], settings: MethodSettings, model: str | None
) -> Mapping[str, torch.Tensor] | None:
    """Return the masks of a warm start that reads them from a file; None for all others."""
    read = registry.warmstart(warmstarts, settings).read
    return None if read is None else read(settings, shapes_of(layers), patterns, model)
