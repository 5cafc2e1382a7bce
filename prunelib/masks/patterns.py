"""Sparsity patterns: which weights compete with which, and how many of them stay.

A pattern cuts a weight (rows, inputs), read row by row, into groups of consecutive places and keeps the same number in
each. There are three cuts: a group is a fixed number of columns of a row (N:M), a row, or the whole matrix.

To add a kind, write its class here and name it in ``AnyPattern`` and ``EXAMPLES``. The rest of the library decides by
the properties of :class:`Pattern`, never by the kind.
"""

import math
import re
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator

from prunelib.errors import NumericalError, PatternError
from prunelib.masks.allocation import LABELS, Allocation, Owl, Table
from prunelib.settings import Settings

_PERCENT = r"([0-9]{1,2}(?:\.[0-9]+)?(?:e-[0-9]{1,3})?)%"


class Groups(NamedTuple):
    """How a matrix is cut: ``size`` consecutive places a group, ``keep`` of them kept."""

    size: int
    keep: int


class Pattern(Settings, ABC):
    """The base of all patterns: what drivers, methods and export ask of one.

    Attributes
    ----------
    kind
        Its name in params.yaml.
    spans_rows
        Whether one group is the whole matrix, so that rows compete; otherwise every group lies within a row.
    text_form
        What :meth:`from_text` reads, for the error message of :func:`parse_pattern`; empty: it reads no text.
    """

    spans_rows: ClassVar[bool] = False
    text_form: ClassVar[str] = ""

    kind: str

    @classmethod
    def from_text(cls, text: str) -> Self | None:  # noqa: ARG003 - every pattern's signature
        """Read the pattern as a person writes it; None: the text is not of this kind.

        Raises
        ------
        ValueError
            If a number in it is out of its range.
        """
        return None

    @property
    @abstractmethod
    def label(self) -> str:
        """The pattern as a person writes it."""

    @property
    @abstractmethod
    def kept_share(self) -> Fraction:
        """The share of weights that it keeps, before rounding to whole weights; the mean where layers differ."""

    @property
    def mean_sparsity(self) -> float:
        """The share of weights that it prunes."""
        return float(1 - self.kept_share)

    @property
    def column_groups(self) -> Groups | None:
        """The groups, where they are a fixed number of columns in every matrix; None: a row or the whole matrix."""
        return None

    @property
    def semi_structured(self) -> bool:
        """Whether it is 2:4, which a GPU's sparse units multiply: export checks there that its weights convert."""
        return self.column_groups == Groups(size=4, keep=2)

    @property
    def layer_allocation(self) -> Owl | Table | None:
        """How layers share the budget of kept weights; None: the same share of each."""
        return None

    @abstractmethod
    def groups(self, rows: int, inputs: int) -> Groups:
        """Cut a matrix (rows, inputs).

        Raises
        ------
        PatternError
            If the pattern does not fit the number of inputs.
        """

    def with_sparsity(self, sparsity: float) -> "Pattern":
        """Return the pattern of this sparsity, the same in all layers: per row if groups are rows, else per layer."""
        by_rows = self.column_groups is None and not self.spans_rows
        return PerRow(sparsity=sparsity) if by_rows else PerLayer(sparsity=sparsity)

    def keeping(self, keep: int, size: int) -> "Pattern":
        """Return the pattern of a layer that keeps ``keep`` of each ``size`` weights, a row or the whole matrix."""
        return self.with_sparsity(_sparsity(keep, size))

    def holds_in(self, weight: torch.Tensor) -> bool:
        """Check whether no group of a weight (rows, inputs) has more non-zeros than the pattern keeps."""
        size, keep = self.groups(*weight.shape)
        return bool((weight.reshape(-1, size) != 0).sum(dim=-1).max() <= keep)


class _BySparsity(Pattern):
    """A pattern that a sparsity gives, in every layer or, with an allocation, on average over layers."""

    sparsity: Annotated[float, Field(gt=0, lt=1)]
    allocation: Allocation | None = None

    @property
    def kept_share(self) -> Fraction:
        """One less the sparsity, as it is written."""
        return 1 - Fraction(str(self.sparsity))

    @property
    def layer_allocation(self) -> Owl | Table | None:
        """The allocation of params.yaml."""
        return self.allocation


class PerRow(_BySparsity):
    """Keep ``inputs - floor(inputs * sparsity)`` weights of every row; with an allocation, on average over layers."""

    text_form: ClassVar[str] = "x% or x% per row with 0 < x < 100"

    kind: Literal["per_row"] = "per_row"

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Read ``60%`` or ``60% per row``."""
        match = re.fullmatch(f"{_PERCENT}(?: per row)?", text)
        return cls(sparsity=_of_percent(match[1])) if match else None

    @property
    def label(self) -> str:
        """The pattern as a person writes it: ``60% per row``."""
        return f"{100 * self.sparsity:g}% per row{_allocated(self.allocation)}"

    def groups(self, rows: int, inputs: int) -> Groups:  # noqa: ARG002 - every pattern's signature
        """Cut a matrix (rows, inputs): a row a group."""
        return _kept_of(inputs, self.sparsity)


class PerLayer(_BySparsity):
    """Keep ``n - floor(n * sparsity)`` of the n weights of a matrix, wherever they stand ("unstructured").

    With an allocation, on average over layers.
    """

    spans_rows: ClassVar[bool] = True
    text_form: ClassVar[str] = "x% per layer with 0 < x < 100"

    kind: Literal["per_layer"] = "per_layer"

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Read ``60% per layer``."""
        match = re.fullmatch(f"{_PERCENT} per layer", text)
        return cls(sparsity=_of_percent(match[1])) if match else None

    @property
    def label(self) -> str:
        """The pattern as a person writes it: ``60% per layer``."""
        return f"{100 * self.sparsity:g}% per layer{_allocated(self.allocation)}"

    def groups(self, rows: int, inputs: int) -> Groups:
        """Cut a matrix (rows, inputs): all of it one group."""
        return _kept_of(rows * inputs, self.sparsity)


class NOfM(Pattern):
    """Keep exactly ``keep`` of every ``group`` consecutive columns (2:4 is keep 2, group 4)."""

    text_form: ClassVar[str] = "n:m with 0 < n < m"

    kind: Literal["n_of_m"] = "n_of_m"
    keep: Annotated[int, Field(ge=1)]
    group: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _keeps_fewer_than_group(self) -> "NOfM":
        if self.keep >= self.group:
            raise ValueError(f"keep must be less than group: {self.keep} of {self.group}")
        return self

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Read ``2:4``."""
        match = re.fullmatch("([0-9]{1,9}):([0-9]{1,9})", text)
        return cls(keep=int(match[1]), group=int(match[2])) if match else None

    @property
    def label(self) -> str:
        """The pattern as a person writes it: ``2:4``."""
        return f"{self.keep}:{self.group}"

    @property
    def kept_share(self) -> Fraction:
        """``keep`` of ``group``."""
        return Fraction(self.keep, self.group)

    @property
    def mean_sparsity(self) -> float:
        """One less ``keep / group``, in floats: ADMM's masks depend on the last bit of it."""
        return 1 - self.keep / self.group

    @property
    def column_groups(self) -> Groups:
        """``group`` columns a group."""
        return Groups(size=self.group, keep=self.keep)

    def groups(self, rows: int, inputs: int) -> Groups:  # noqa: ARG002 - every pattern's signature
        """Cut a matrix (rows, inputs): ``group`` columns a group.

        Raises
        ------
        PatternError
            If ``group`` does not divide ``inputs``.
        """
        if inputs % self.group:
            raise PatternError(f"pattern {self.label}: group {self.group} does not divide the layer's {inputs} inputs")
        return self.column_groups


AnyPattern = Annotated[PerRow | PerLayer | NOfM, Field(discriminator="kind")]
"""A pattern of params.yaml."""

EXAMPLES: tuple[Pattern, ...] = (PerRow(sparsity=0.5), PerLayer(sparsity=0.5), NOfM(keep=2, group=4))
"""One of each kind: texts are read as these kinds, and the table of methods says which of them a method supports."""


def parse_pattern(text: str) -> Pattern:
    """Read a pattern as a person writes it: ``60%`` (per row), ``60% per row``, ``60% per layer`` or ``2:4``.

    Raises
    ------
    PatternError
        If the text is none of these, or a number in it is out of its range.
    """
    try:
        for example in EXAMPLES:
            if (pattern := example.from_text(text)) is not None:
                return pattern
    except ValueError:  # a number out of its range
        pass
    *forms, last = [example.text_form for example in EXAMPLES if example.text_form]
    raise PatternError(f"pattern {text!r}: expected {', '.join(forms)}, or {last}")


def _allocated(allocation: Owl | Table | None) -> str:
    return LABELS[allocation.method] if allocation else ""


def _sparsity(keep: int, size: int) -> float:
    """The sparsity that keeps exactly ``keep`` of ``size``: a little too high, for what it prunes is rounded down."""
    return math.nextafter((size - keep) / size, 1)


def _of_percent(number: str) -> float:
    """The share of a percentage, in exact fractions: 29% are 0.29."""
    return float(Fraction(number) / 100)


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
    return pattern.column_groups.size if pattern.column_groups else inputs


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
