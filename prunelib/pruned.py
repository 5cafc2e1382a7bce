"""The artifact of a refined cell: its masks, and the kept weights where a refiner has moved them.

masks.safetensors     one bit a weight
weights.safetensors   where kept weights have moved: their values alone, row by row, in the model's dtype
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prunelib import store
from prunelib.errors import ArtifactError
from prunelib.masks import read_masks, write_masks

_MASKS, _WEIGHTS = "masks.safetensors", "weights.safetensors"


class Pruned(NamedTuple):
    """A pruned model without its stock weights.

    ``masks`` is layer name to (rows, inputs) bool, True = kept; ``weights`` layer name to (rows, inputs), +0.0 where
    pruned, for the layers whose kept weights are not those of the model.
    """

    masks: Mapping[str, torch.Tensor]
    weights: Mapping[str, torch.Tensor]


def write_pruned(folder: Path, pruned: Pruned, provenance: Mapping[str, Any]) -> None:
    """Write the artifact's folder.

    Raises
    ------
    ArtifactError
        If a file could not be written.
    """
    with store.replacing_folder(folder) as target:
        write_masks(target / _MASKS, pruned.masks, provenance)
        if pruned.weights:
            kept = {name: weight[pruned.masks[name]] for name, weight in pruned.weights.items()}
            store.write_tensors(target / _WEIGHTS, kept, "weights", provenance)


def read_pruned(folder: Path, expected: Mapping[str, Any]) -> Pruned:
    """Read the artifact.

    Raises
    ------
    ArtifactError
        If a file is missing, damaged or of another kind, its provenance differs from ``expected``, or the weights do
        not fit the masks.
    """
    masks = read_masks(folder / _MASKS, expected)
    path = folder / _WEIGHTS
    if not path.exists():
        return Pruned(masks, {})
    store.expect_provenance(path, store.read_provenance(path, "weights"), expected)
    kept = store.read_tensors(path, "weights")
    return Pruned(masks, {name: _placed(path, name, values, masks) for name, values in kept.items()})


def _placed(path: Path, name: str, values: torch.Tensor, masks: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Kept values put back where the mask keeps them."""
    mask = masks.get(name)
    if mask is None or values.shape != (int(mask.sum()),):
        raise ArtifactError(f"{path}: {name} holds {values.numel()} weights, which do not fit its mask")
    if not values.isfinite().all():
        raise ArtifactError(f"{path}: {name} holds NaN or infinity, expected finite weights")
    weight = torch.zeros(mask.shape, dtype=values.dtype)
    weight[mask] = values
    return weight
