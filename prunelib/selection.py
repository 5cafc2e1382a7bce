"""A whole model through a warm start: layer by layer, from weights and Gram matrices on disk."""

from pathlib import Path
from typing import Any

import torch

from prunelib import registry, warmstarts
from prunelib.calibration import Calibration
from prunelib.errors import PatternError
from prunelib.patterns import Pattern, select
from prunelib.weights import read_weight


def warmstart_masks(folder: Path, calibration: Calibration, pattern: Pattern, settings: Any) -> dict[str, torch.Tensor]:
    """Masks (rows, inputs) bool by layer name that keep the most salient weights of every layer.

    Parameters
    ----------
    folder
        The model.
    settings
        Of one method in :mod:`prunelib.warmstarts`.
    """
    saliency = registry.methods(warmstarts)[settings.method].saliency
    masks = {}
    for layer in calibration.index.layers:
        scores = saliency(read_weight(folder, layer), calibration.gram(layer), settings)
        try:
            masks[layer.name] = select(scores, pattern)
        except PatternError as error:
            raise PatternError(f"{layer.name}: {error}") from None
    return masks
