"""The artifact of a refined cell: its masks, and the kept weights that a refiner updated.

masks.safetensors     one bit per weight
weights.safetensors   only if kept weights were updated: their values, row by row, in the model's dtype
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prunelib.errors import ArtifactError
from prunelib.masks.packed import PackedMasks, read_masks, write_masks
from prunelib.runtime import atomic, hashing, store

MASKS_FILE, _WEIGHTS = "masks.safetensors", "weights.safetensors"


class Pruned(NamedTuple):
    """The masks and updated weights of a pruned model, without the weights of the dense model.

    ``masks`` maps layer names to (rows, inputs) bool, True = kept; ``weights`` maps the names of layers with updated
    weights to (rows, inputs), +0.0 where pruned.
    """

    masks: Mapping[str, torch.Tensor]
    weights: Mapping[str, torch.Tensor]


class UpdatedWeights(Mapping[str, torch.Tensor]):
    """Weights (rows, inputs) by layer name, +0.0 where pruned; only kept values are stored, expanded on access.

    Parameters
    ----------
    kept
        The kept values by layer name, row by row.
    masks
        (rows, inputs) bool by layer name, for at least these layers.
    """

    def __init__(self, kept: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]) -> None:
        self.kept, self._masks = kept, masks

    @classmethod
    def of(cls, pruned: Pruned) -> "UpdatedWeights":
        """Return the updated weights of a pruned model."""
        if isinstance(pruned.weights, cls):
            return pruned.weights
        return cls({name: weight[pruned.masks[name]] for name, weight in pruned.weights.items()}, pruned.masks)

    def __getitem__(self, name: str) -> torch.Tensor:
        values, mask = self.kept[name], self._masks[name]
        weight = torch.zeros(mask.shape, dtype=values.dtype)
        weight[mask] = values
        return weight

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


def write_pruned(folder: Path, pruned: Pruned, provenance: Mapping[str, Any]) -> None:
    """Write the artifact's folder.

    Raises
    ------
    ArtifactError
        If a file could not be written.
    """
    with atomic.replacing_folder(folder) as target:
        write_masks(target / MASKS_FILE, pruned.masks, provenance)
        if pruned.weights:
            store.write_tensors(target / _WEIGHTS, UpdatedWeights.of(pruned).kept, "weights", provenance)


def read_pruned(folder: Path, expected: Mapping[str, Any]) -> Pruned:
    """Read the artifact; its tensors stay on disk until accessed.

    Raises
    ------
    ArtifactError
        If a file is missing, damaged or of another kind, its provenance differs from ``expected``, or the weights do
        not fit the masks.
    """
    masks = read_masks(folder / MASKS_FILE, expected)
    path = folder / _WEIGHTS
    if not path.exists():
        return Pruned(masks, {})
    store.expect_provenance(path, store.read_provenance(path, "weights"), expected)
    kept = store.read_tensors(path, "weights")
    _check_fits(path, kept, masks)
    return Pruned(masks, UpdatedWeights(kept, masks))


def pruned_identity(folder: Path) -> str:
    """Return the SHA-256 over the masks and weights of an artifact, from the headers of its files.

    Raises
    ------
    ArtifactError
        If a file is missing or damaged.
    """
    weights = folder / _WEIGHTS
    found = [store.tensors_identity(folder / MASKS_FILE, "mask")]
    return hashing.sha256_json([*found, *([store.tensors_identity(weights, "weights")] if weights.exists() else [])])


def merge_pruned(parts: Sequence[Pruned]) -> Pruned:
    """Merge the parts of a pruned model; tensors on disk stay there."""
    masks = PackedMasks.joined(PackedMasks.of(part.masks) for part in parts)
    kept = {name: values for part in parts for name, values in UpdatedWeights.of(part).kept.items()}
    return Pruned(masks, UpdatedWeights(kept, masks))


def _check_fits(path: Path, kept: Mapping[str, torch.Tensor], masks: PackedMasks) -> None:
    numbers = masks.kept()
    for name, values in kept.items():
        if values.shape != (numbers.get(name, -1),):
            raise ArtifactError(f"{path}: {name} holds {values.numel()} weights, which do not fit its mask")
        if not values.isfinite().all():
            raise ArtifactError(f"{path}: {name} contains NaN or infinity, expected finite weights")
