"""The mask artifact: one bit a weight, packed row by row, with the exact counts and what the mask was made from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunelib import store
from prunelib.errors import ArtifactError


def write_masks(path: Path, masks: Mapping[str, torch.Tensor], provenance: Mapping[str, Any]) -> None:
    """Write masks (rows, inputs) bool by layer name, as (rows, ceil(inputs / 8)) uint8, highest bit first.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    packed = {name: torch.from_numpy(np.packbits(mask.numpy(), axis=1)) for name, mask in masks.items()}
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    store.write_tensors(path, packed, "mask", {**provenance, "shapes": shapes, "kept": kept})


def read_masks(path: Path, expected: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Read masks (rows, inputs) bool by layer name.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged or no mask, if its provenance differs from ``expected``, or if its counts are
        not those in its header.
    """
    header = store.read_provenance(path, "mask")
    store.expect_provenance(path, header, expected)
    tensors = store.read_tensors(path, "mask")
    shapes = {name: [len(packed), packed.shape[-1]] for name, packed in tensors.items()}
    packed_shapes = {name: [rows, -(-inputs // 8)] for name, (rows, inputs) in header.get("shapes", {}).items()}
    store.expect_provenance(path, {"tensors": shapes}, {"tensors": packed_shapes})
    masks = {}
    for name, packed in tensors.items():
        inputs = header["shapes"][name][1]
        masks[name] = torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=inputs).astype(bool))
        kept = int(masks[name].sum())
        if kept != header["kept"][name]:
            raise ArtifactError(f"{path}: {name} keeps {kept} weights, its header says {header['kept'][name]}")
    return masks
