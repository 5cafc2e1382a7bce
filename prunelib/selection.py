"""A whole model through a warm start: layer by layer, from weights and Gram matrices on disk."""

from pathlib import Path
from typing import Any

import torch

from prunelib import registry, warmstarts
from prunelib.calibration import Calibration
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
    return {
        layer.name: select(saliency(read_weight(folder, layer), calibration.gram(layer), settings), pattern)
        for layer in calibration.index.layers
    }
