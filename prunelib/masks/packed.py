"""The mask artifact: one bit per weight, packed row by row, with exact counts and provenance."""

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from prunelib.errors import ArtifactError
from prunelib.masks.checks import bool_mask
from prunelib.runtime import store

_UNKNOWN: Mapping[str, Any] = MappingProxyType({})


class PackedMasks(Mapping[str, torch.Tensor]):
    """Masks (rows, inputs) bool by layer name, stored as one bit per weight and unpacked on access.

    Parameters
    ----------
    packed
        (rows, ceil(inputs / 8)) uint8 by layer name, highest bit first, zeros beyond the last input.
    inputs
        Number of inputs by layer name.
    """

    def __init__(self, packed: Mapping[str, torch.Tensor], inputs: Mapping[str, int]) -> None:
        self.packed, self._inputs = packed, inputs

    @classmethod
    def of(cls, masks: Mapping[str, torch.Tensor]) -> "PackedMasks":
        """Pack masks (rows, inputs) bool by layer name; raise as :func:`bool_mask`."""
        if isinstance(masks, cls):
            return masks
        packed, inputs = dict[str, torch.Tensor](), dict[str, int]()
        for name in masks:
            mask = bool_mask(name, masks[name])
            packed[name] = torch.from_numpy(np.packbits(mask.cpu().numpy(), axis=1))
            inputs[name] = mask.shape[1]
        return cls(packed, inputs)

    @classmethod
    def joined(cls, parts: Iterable["PackedMasks"]) -> "PackedMasks":
        """Merge the masks of different layers."""
        packed: dict[str, torch.Tensor] = {}
        inputs: dict[str, int] = {}
        for part in parts:
            packed.update(part.packed)
            inputs.update(part._inputs)
        return cls(packed, inputs)

    def __getitem__(self, name: str) -> torch.Tensor:
        bits = np.unpackbits(self.packed[name].numpy(), axis=1, count=self._inputs[name])
        return torch.from_numpy(bits.view(bool))

    def __iter__(self) -> Iterator[str]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)

    def shapes(self) -> dict[str, list[int]]:
        """Return rows and inputs by layer name."""
        return {name: [len(bits), self._inputs[name]] for name, bits in self.packed.items()}

    def kept(self) -> dict[str, int]:
        """Return the number of kept weights by layer name."""
        return {name: int(np.bitwise_count(bits.numpy()).sum(dtype=np.int64)) for name, bits in self.packed.items()}


def write_masks(path: Path | str, masks: Mapping[str, torch.Tensor], provenance: Mapping[str, Any] = _UNKNOWN) -> None:
    """Write masks (rows, inputs) bool by layer name.

    Parameters
    ----------
    provenance
        What the masks were made from, as JSON values.

    Raises
    ------
    PatternError
        If a mask is no bool tensor of two dimensions.
    ArtifactError
        If the file could not be written.
    """
    masks = PackedMasks.of(masks)
    store.write_tensors(
        Path(path), masks.packed, "mask", {**provenance, "shapes": masks.shapes(), "kept": masks.kept()}
    )


def read_masks(
    path: Path | str, expected: Mapping[str, Any] = _UNKNOWN, layers: Container[str] | None = None
) -> PackedMasks:
    """Read masks (rows, inputs) bool by layer name; they stay packed and on disk until used.

    Parameters
    ----------
    expected
        Entries that their provenance must have.
    layers
        Names of layers whose masks are read; None: all.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged or not a mask file, if its provenance differs from ``expected``, or if its
        counts differ from its header.
    """
    path = Path(path)
    header = store.read_provenance(path, "mask")
    store.expect_provenance(path, header, expected)
    shapes = {name: shape for name, shape in header.get("shapes", {}).items() if layers is None or name in layers}
    packed = store.read_tensors(path, "mask", None if layers is None else shapes)
    found = {name: [len(bits), bits.shape[-1]] for name, bits in packed.items()}
    packed_shapes = {name: [rows, -(-inputs // 8)] for name, (rows, inputs) in shapes.items()}
    store.expect_provenance(path, {"tensors": found}, {"tensors": packed_shapes})
    masks = PackedMasks(packed, {name: inputs for name, (_, inputs) in shapes.items()})
    for name, kept in masks.kept().items():
        if kept != header["kept"][name]:
            raise ArtifactError(f"{path}: {name} keeps {kept} weights, its header says {header['kept'][name]}")
    return masks
