"""Whether masks are masks, and have the counts of their patterns."""

from collections.abc import Mapping
from typing import Any

import torch

from prunelib.algebra.tensors import values
from prunelib.errors import NumericalError, PatternError
from prunelib.masks.patterns import Pattern, checked_pattern


def bool_mask(name: str, given: Any) -> torch.Tensor:
    """Return the mask (rows, inputs) bool of the layer of this name.

    Raises
    ------
    PatternError
        If it is something else; the message names the layer.
    """
    try:
        mask = values(f"mask of {name}", given)
    except NumericalError as error:
        raise PatternError(str(error)) from None
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise PatternError(
            f"mask of {name}: {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool (rows, inputs)"
        )
    return mask


def check_mask(mask: torch.Tensor, weight: torch.Tensor, pattern: Pattern) -> None:
    """Refuse a mask (rows, inputs) that does not fit its weight or whose groups violate the pattern's counts.

    Raises
    ------
    NumericalError
        If it is no dense tensor.
    PatternError
        If dtype, shape or counts differ; the message names which.
    """
    mask = values("mask", mask)
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        raise PatternError(
            f"mask: {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of shape {tuple(weight.shape)}"
        )
    size, keep = checked_pattern(pattern).groups(*mask.shape)
    counts = mask.reshape(-1, size).sum(dim=-1)
    if off := (counts != keep).nonzero().flatten().tolist():
        row = off[0] * size // mask.shape[1]
        raise PatternError(
            f"mask: {len(off)} of {len(counts)} groups do not keep exactly {keep} of {size} ({pattern.label}), the "
            f"first in row {row}"
        )


def patterns_of(masks: Mapping[str, torch.Tensor], pattern: Pattern) -> dict[str, Pattern]:
    """Return the pattern of every layer, by name, counted from its mask (rows, inputs) bool of this pattern.

    Raises
    ------
    PatternError
        If the first group of a mask keeps nothing; the message names the layer.
    """
    if pattern.layer_allocation is None:
        return dict.fromkeys(masks, pattern)
    found: dict[str, Pattern] = {}
    for name in masks:
        mask = masks[name]
        size, _ = pattern.groups(*mask.shape)
        if not (keep := int(mask.flatten()[:size].sum())):
            raise PatternError(f"{name}: its mask keeps none of its first {size} weights, expected at least 1")
        found[name] = pattern.keeping(keep, size)
    return found


def check_counts(masks: Mapping[str, torch.Tensor], pattern: Pattern) -> None:
    """Check that every group of masks (rows, inputs) bool by layer name keeps the pattern's count.

    With an allocation the count is that of the layer's first group.

    Raises
    ------
    PatternError
        If a group does not; the message names the layer.
    """
    for name, each in patterns_of(masks, pattern).items():
        mask = masks[name]
        try:
            check_mask(mask, mask, each)
        except PatternError as error:
            raise PatternError(f"{name}: {error}") from None
