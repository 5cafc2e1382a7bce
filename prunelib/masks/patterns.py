"""Sparsity patterns: the groups in which weights compete, and how many weights each group keeps.

A pattern divides a weight (rows, inputs), in row-major order, into groups of consecutive positions and keeps the same
number in each. A group is a fixed number of columns of a row (N:M), a row, or the whole matrix.

To add a kind, write its class here and add it to ``AnyPattern`` and ``EXAMPLES``. The rest of the library uses the
properties of :class:`Pattern`, never the kind.
"""

import math
import re
from abc import ABC, abstractmethod
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator

from prunelib.errors import PatternError
from prunelib.masks.allocation import Allocation, AnyAllocation, MeasuredAllocation
from prunelib.settings import Settings

_PERCENT = r"([0-9]{1,2}(?:\.[0-9]+)?(?:e-[0-9]{1,3})?)%"


class Groups(NamedTuple):
    """The division of a matrix: each group has ``size`` consecutive positions, of which ``keep`` are kept."""

    size: int
    keep: int


class Pattern(Settings, ABC):
    """The base class of all patterns: the properties that drivers, methods and export use.

    Attributes
    ----------
    kind
        Its name in params.yaml.
    spans_rows
        Whether one group is the whole matrix, so that rows compete; otherwise every group lies within a row.
    text_form
        The text that :meth:`from_text` reads, for the error message of :func:`parse_pattern`; empty: none.
    """

    spans_rows: ClassVar[bool] = False
    text_form: ClassVar[str] = ""

    kind: str

    @classmethod
    def from_text(cls, text: str) -> Self | None:  # noqa: ARG003 - every pattern's signature
        """Read the pattern from its text form; None: the text is not of this kind.

        Raises
        ------
        ValueError
            If a number in the text is out of range.
        """
        return None

    @property
    @abstractmethod
    def label(self) -> str:
        """The pattern in its text form."""

    @property
    @abstractmethod
    def kept_share(self) -> Fraction:
        """The share of weights kept, before rounding to whole weights; the mean if layers differ."""

    @property
    def mean_sparsity(self) -> float:
        """The share of weights pruned, as :attr:`kept_share`."""
        return float(1 - self.kept_share)

    @property
    def column_groups(self) -> Groups | None:
        """The groups, if they are a fixed number of columns in every matrix; None: a row or the whole matrix."""
        return None

    @property
    def semi_structured(self) -> bool:
        """Whether the pattern is 2:4, the format of sparse tensor cores; export checks that its weights convert."""
        return self.column_groups == Groups(size=4, keep=2)

    @property
    def layer_allocation(self) -> Allocation | None:
        """The allocation of kept weights to layers; None: the same share of each layer."""
        return None

    @property
    def measured_allocation(self) -> MeasuredAllocation | None:
        """The allocation, if it measures every block before any is pruned; None otherwise."""
        allocation = self.layer_allocation
        return allocation if isinstance(allocation, MeasuredAllocation) else None

    @abstractmethod
    def groups(self, rows: int, inputs: int) -> Groups:
        """Return the groups of a matrix (rows, inputs).

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

    def group_columns(self, inputs: int) -> int | None:
        """Return the number of columns of a group that is a part of a row; None: it is a row or the whole matrix."""
        if self.column_groups:
            return self.column_groups.size
        if self.spans_rows:
            return None
        size = self.groups(1, inputs).size
        return size if size < inputs else None

    def swap_columns(self, inputs: int) -> int:
        """Return how many consecutive columns may be swapped without changing a group's count: a group's or a row's."""
        return self.group_columns(inputs) or inputs

    def holds_in(self, weight: torch.Tensor) -> bool:
        """Return whether no group of a weight (rows, inputs) has more non-zeros than the pattern keeps."""
        size, keep = self.groups(*weight.shape)
        return bool((weight.reshape(-1, size) != 0).sum(dim=-1).max() <= keep)


class _BySparsity(Pattern):
    """A pattern of a given sparsity, in every layer or, with an allocation, on average over layers."""

    sparsity: Annotated[float, Field(gt=0, lt=1)]
    allocation: AnyAllocation | None = None

    @model_validator(mode="after")
    def _allocation_is_possible(self) -> Self:
        if self.allocation:
            self.allocation.check(self.sparsity)
        return self

    @property
    def kept_share(self) -> Fraction:
        """1 - sparsity, as an exact decimal fraction."""
        return 1 - Fraction(str(self.sparsity))

    @property
    def layer_allocation(self) -> Allocation | None:
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
        """The pattern in its text form: ``60% per row``."""
        return f"{_percent(self.sparsity)}% per row{_allocated(self.allocation)}"

    def groups(self, rows: int, inputs: int) -> Groups:  # noqa: ARG002 - every pattern's signature
        """Return the groups of a matrix (rows, inputs): one per row."""
        return _kept_of(inputs, self.sparsity)


class PerLayer(_BySparsity):
    """Keep ``n - floor(n * sparsity)`` of the n weights of a matrix, at any positions ("unstructured").

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
        """The pattern in its text form: ``60% per layer``."""
        return f"{_percent(self.sparsity)}% per layer{_allocated(self.allocation)}"

    def groups(self, rows: int, inputs: int) -> Groups:
        """Return the groups of a matrix (rows, inputs): the whole matrix is one group."""
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
        """The pattern in its text form: ``2:4``."""
        return f"{self.keep}:{self.group}"

    @property
    def kept_share(self) -> Fraction:
        """``keep / group``."""
        return Fraction(self.keep, self.group)

    @property
    def mean_sparsity(self) -> float:
        """1 - ``keep / group`` in float arithmetic: ADMM's masks depend on its last bit."""
        return 1 - self.keep / self.group

    @property
    def column_groups(self) -> Groups:
        """Groups of ``group`` columns."""
        return Groups(size=self.group, keep=self.keep)

    def groups(self, rows: int, inputs: int) -> Groups:  # noqa: ARG002 - every pattern's signature
        """Return the groups of a matrix (rows, inputs): ``group`` columns each.

        Raises
        ------
        PatternError
            If ``group`` does not divide ``inputs``.
        """
        if inputs % self.group:
            raise PatternError(f"pattern {self.label}: group {self.group} does not divide the layer's {inputs} inputs")
        return self.column_groups


AnyPattern = Annotated[PerRow | PerLayer | NOfM, Field(discriminator="kind")]
"""Any pattern in params.yaml."""

EXAMPLES: tuple[Pattern, ...] = (PerRow(sparsity=0.5), PerLayer(sparsity=0.5), NOfM(keep=2, group=4))
"""One pattern of each kind: the kinds that :func:`parse_pattern` tries, and those that the table of methods names."""


def parse_pattern(text: str) -> Pattern:
    """Read a pattern from its text form: ``60%`` (per row), ``60% per row``, ``60% per layer`` or ``2:4``.

    Raises
    ------
    PatternError
        If the text is none of these, or a number in it is out of range.

    Examples
    --------
    >>> prunelib.parse_pattern("2:4")
    NOfM(kind='n_of_m', keep=2, group=4)
    >>> prunelib.parse_pattern("60%").label
    '60% per row'
    """
    try:
        for example in EXAMPLES if isinstance(text, str) else ():
            if (pattern := example.from_text(text)) is not None:
                return pattern
    except ValueError:  # a number out of range
        pass
    *forms, last = [example.text_form for example in EXAMPLES if example.text_form]
    raise PatternError(f"pattern {text!r}: expected {', '.join(forms)}, or {last}")


def _allocated(allocation: Allocation | None) -> str:
    return f", {allocation.title}" if allocation else ""


def _sparsity(keep: int, size: int) -> float:
    """Return the sparsity that keeps exactly ``keep`` of ``size``: one ulp high, as pruned counts round down."""
    return math.nextafter((size - keep) / size, 1)


def _percent(share: float) -> str:
    """Convert a share to a percentage that :func:`_of_percent` reads back, as 60 or 66.66666666666667."""
    return f"{(Decimal(str(share)) * 100).normalize():f}"


def _of_percent(number: str) -> float:
    """Convert a percentage to a share, in exact fractions: 29% is 0.29."""
    return float(Fraction(number) / 100)


def _kept_of(size: int, sparsity: float) -> Groups:
    """Return groups of ``size``, with counts in exact fractions: 29% of 100 is 29."""
    return Groups(size=size, keep=size - int(size * Fraction(str(sparsity))))


def as_pattern(given: Pattern | str) -> Pattern:
    """Return a pattern, or the one of a text, :func:`parse_pattern`; raise PatternError for anything else."""
    return parse_pattern(given) if isinstance(given, str) else checked_pattern(given)


def checked_pattern(pattern: Pattern) -> Pattern:
    """Return a pattern; raise PatternError for anything else."""
    if not isinstance(pattern, Pattern):
        raise PatternError(f"pattern: {pattern!r}, expected a pattern such as PerRow or NOfM; parse_pattern reads text")
    return pattern
