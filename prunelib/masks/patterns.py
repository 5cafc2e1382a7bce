"""Sparsity patterns: which weights compete with which, and how many of them stay.

A pattern cuts a weight (rows, inputs), read row by row, into groups of consecutive places and keeps the same number in
each: per layer, one group is the whole matrix; per row, a row; for N:M, groups are M wide and keep N.
"""

import math
from fractions import Fraction
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from prunelib.errors import NumericalError, PatternError
from prunelib.masks.allocation import LABELS, Allocation, Owl, Table
from prunelib.settings import Settings


class Groups(NamedTuple):
    """How a matrix is cut: ``size`` consecutive places a group, ``keep`` of them kept."""

    size: int
    keep: int


class PerRow(Settings):
    """Keep ``inputs - floor(inputs * sparsity)`` weights of every row; with an allocation, on average over layers."""

    kind: Literal["per_row"] = "per_row"
    sparsity: Annotated[float, Field(gt=0, lt=1)]
    allocation: Allocation | None = None

    @property
    def label(self) -> str:
        """The pattern as a person writes it: ``60% per row``."""
        return f"{100 * self.sparsity:g}% per row{_allocated(self.allocation)}"

    def keeping(self, keep: int, size: int) -> "PerRow":
        """The pattern of a layer that keeps so many weights of each row of ``size``."""
        return PerRow(sparsity=_sparsity(keep, size))

    def groups(self, rows: int, inputs: int) -> Groups:  # noqa: ARG002 - every pattern's signature
        """The cut of a matrix (rows, inputs): a row a group."""
        return _kept_of(inputs, self.sparsity)


class PerLayer(Settings):
    """Keep ``n - floor(n * sparsity)`` of the n weights of a matrix, wherever they stand ("unstructured").

    With an allocation, on average over layers.
    """

    kind: Literal["per_layer"] = "per_layer"
    sparsity: Annotated[float, Field(gt=0, lt=1)]
    allocation: Allocation | None = None

    @property
    def label(self) -> str:
        """The pattern as a person writes it: ``60% per layer``."""
        return f"{100 * self.sparsity:g}% per layer{_allocated(self.allocation)}"

    def keeping(self, keep: int, size: int) -> "PerLayer":
        """The pattern of a layer that keeps so many of its ``size`` weights."""
        return PerLayer(sparsity=_sparsity(keep, size))

    def groups(self, rows: int, inputs: int) -> Groups:
        """The cut of a matrix (rows, inputs): all of it one group."""
        return _kept_of(rows * inputs, self.sparsity)


class NOfM(Settings):
    """Keep exactly ``keep`` of every ``group`` consecutive columns (2:4 is keep 2, group 4)."""

    kind: Literal["n_of_m"] = "n_of_m"
    keep: Annotated[int, Field(ge=1)]
    group: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _keeps_fewer_than_group(self) -> "NOfM":
        if self.keep >= self.group:
            raise ValueError(f"keep must be less than group: {self.keep} of {self.group}")
        return self

    @property
    def label(self) -> str:
        """The pattern as a person writes it: ``2:4``."""
        return f"{self.keep}:{self.group}"

    def groups(self, rows: int, inputs: int) -> Groups:  # noqa: ARG002 - every pattern's signature
        """The cut of a matrix (rows, inputs): ``group`` columns a group.

        Raises
        ------
        PatternError
            If ``group`` does not divide ``inputs``.
        """
        if inputs % self.group:
            raise PatternError(f"pattern {self.label}: group {self.group} does not divide the layer's {inputs} inputs")
        return Groups(size=self.group, keep=self.keep)


Pattern = PerRow | PerLayer | NOfM


def _allocated(allocation: Owl | Table | None) -> str:
    return LABELS[allocation.method] if allocation else ""


def _sparsity(keep: int, size: int) -> float:
    """The sparsity that keeps exactly ``keep`` of ``size``: a little too high, for what it prunes is rounded down."""
    return math.nextafter((size - keep) / size, 1)


def _kept_of(size: int, sparsity: float) -> Groups:
    """One group of ``size``, counted in exact fractions: 29% of 100 are 29."""
    return Groups(size=size, keep=size - int(size * Fraction(str(sparsity))))


def select(scores: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Keep the highest scores of each group, by rank: exact counts, ties to the lower row, then column.

    Parameters
    ----------
    scores
        (rows, inputs), any real dtype, free of NaN.

    Returns
    -------
    torch.Tensor
        (rows, inputs) bool, True = kept.

    Raises
    ------
    NumericalError
        If a score is NaN (it would sort last and be kept).
    PatternError
        If the pattern does not fit the number of inputs.
    """
    if scores.isnan().any():
        raise NumericalError("scores: NaN found, expected real numbers")
    size, keep = pattern.groups(*scores.shape)
    groups = scores.reshape(-1, size)
    least = groups.topk(keep, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    above, equal = groups > least, groups == least
    left = keep - above.sum(dim=1, keepdim=True)
    return (above | (equal & (equal.cumsum(dim=1) <= left))).reshape(scores.shape)


def swap_columns(pattern: Pattern, inputs: int) -> int:
    """How many consecutive columns of one row may swap places without changing a group's count: a row or a group."""
    return min(pattern.groups(1, inputs).size, inputs)


def check_mask(mask: torch.Tensor, weight: torch.Tensor, pattern: Pattern) -> None:
    """Refuse a mask (rows, inputs) that does not fit its weight, or whose groups keep other counts than the pattern.

    Raises
    ------
    PatternError
        Naming what differs.
    """
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        raise PatternError(
            f"mask: {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of shape {tuple(weight.shape)}"
        )
    size, keep = pattern.groups(*mask.shape)
    counts = mask.reshape(-1, size).sum(dim=-1)
    if off := int((counts != keep).sum()):
        raise PatternError(
            f"mask: {off} of {len(counts)} groups do not keep exactly {keep} of {size} ({pattern.label})"
        )
