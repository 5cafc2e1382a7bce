"""The contract of a method: arguments, results and declared properties of warm starts and refiners.

Shapes, here and in every method::

    weight   (rows, inputs), any float dtype, as :class:`torch.nn.Linear` has it; never changed
    gram     (inputs, inputs) float32: sum over tokens of x x^T, x the layer's input
    mask     (rows, inputs) bool, True = kept, with the exact counts of the pattern

A method's docstrings state only what differs. Its module defines ``METHOD``, a :class:`WarmStart` or a
:class:`Refiner`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch

from prunelib.masks.checks import check_mask
from prunelib.masks.patterns import Pattern
from prunelib.masks.selection import select
from prunelib.methods.workspace import SWAPS, Workspace
from prunelib.runtime.compute import Compute
from prunelib.settings import Settings


class MethodSettings(Settings):
    """The settings of a method in params.yaml; ``method`` is its name, that of its file."""

    method: str

    @property
    def needs_held_out(self) -> bool:
        """Whether the method needs the Gram matrix of held-out tokens."""
        return False

    @property
    def skipped_layers(self) -> tuple[str, ...]:
        """Names of layers that the method leaves as they are, with ``*`` as a wildcard."""
        return ()


S = TypeVar("S", bound=MethodSettings)
S_contra = TypeVar("S_contra", bound=MethodSettings, contravariant=True)

Progress = Callable[[int, float, float], None]
"""A callback for finished rows, each reported once: their number, and the sums of their losses before and after."""


def silent(rows: int, loss_before: float, loss_after: float) -> None:
    """Ignore the progress (no-op callback)."""


class ExtraInputs(NamedTuple):
    """Inputs beyond weight, Gram matrix and mask; a refiner declares which of these it uses.

    Attributes
    ----------
    updated_weight
        (rows, inputs), 0 where pruned: the kept weights from the previous step. None: the model's.
    input_mean
        (inputs,) float32: mean of the inputs over the calibration tokens.
    tokens
        Number of calibration tokens of the layer.
    windows
        Number of calibration windows, which these tokens are part of.
    name
        Name of the layer.
    held_out_gram
        (inputs, inputs) float32: the Gram matrix of held-out tokens. None: there are none.
    """

    updated_weight: torch.Tensor | None = None
    input_mean: torch.Tensor | None = None
    tokens: int | None = None
    windows: int | None = None
    name: str | None = None
    held_out_gram: torch.Tensor | None = None


NOTHING_ELSE = ExtraInputs()


@dataclass(frozen=True)
class Refined:
    """A refined mask with statistics of each row.

    Attributes
    ----------
    mask
        (rows, inputs) bool, True = kept.
    loss_before, loss_after
        (rows,) float64: pruning error of the input and of the result.
    weight
        (rows, inputs) float32: the updated kept weights, +0.0 where pruned; None: those of the model.
    swaps, sweeps
        (rows,) int64: swaps made and scans over all pairs; None where the refiner makes no swaps.
    optimal
        (rows,) bool: proven that no swap lowers the row's loss by more than the bound that the refiner states; None
        where it proves nothing.
    bound
        Lower bound on the pruning error of the whole matrix, for any mask of the pattern on the model's weights; None:
        unknown.

    Notes
    -----
    ``optimal`` and ``bound`` are of weights rounded to float32, which changes those of float64 alone.
    """

    mask: torch.Tensor
    loss_before: torch.Tensor
    loss_after: torch.Tensor
    weight: torch.Tensor | None = None
    swaps: torch.Tensor | None = None
    sweeps: torch.Tensor | None = None
    optimal: torch.Tensor | None = None
    bound: float | None = None


class Refine(Protocol[S_contra]):
    """Refine the mask of one layer."""

    def __call__(
        self,
        weight: torch.Tensor,
        gram: torch.Tensor,
        mask: torch.Tensor,
        pattern: Pattern,
        settings: S_contra = ...,
        progress: Progress = ...,
        extra: ExtraInputs = ...,
        compute: Compute = ...,
    ) -> Refined:
        """Return a better mask, or better kept weights.

        Every group of the pattern keeps as many weights as before. On one device the result is the same bit for bit
        for any number of threads.

        Parameters
        ----------
        weight, gram, mask
            On one device; the Gram matrix may be on the CPU if the refiner declares ``accepts_cpu_gram``. They are not
            changed.
        progress
            Called as rows are finished.
        extra
            Further inputs; only the fields that the refiner declares are used.
        compute
            Threads and kernels.

        Raises
        ------
        NumericalError
            If a weight or Gram entry is NaN or infinite, or the shapes do not fit.
        PatternError
            If the mask does not have the pattern's counts, or the method does not support the pattern.
        """


class Saliency(Protocol[S_contra]):
    """Score the weights of one layer: those with the highest scores in each group of the pattern are kept."""

    def __call__(self, weight: torch.Tensor, gram: torch.Tensor, settings: S_contra = ...) -> torch.Tensor:
        """Return scores (rows, inputs) float32."""


class Choose(Protocol[S_contra]):
    """Choose the mask of one layer, for methods that do not rank by one score."""

    def __call__(
        self, weight: torch.Tensor, gram: torch.Tensor, pattern: Pattern, settings: S_contra = ...
    ) -> torch.Tensor:
        """Return a mask (rows, inputs) bool with the exact counts of the pattern.

        Raises
        ------
        NumericalError
            If a weight or Gram entry is NaN or infinite, or the shapes do not fit.
        PatternError
            If the pattern does not fit the number of inputs.
        """


class ReadMasks(Protocol[S_contra]):
    """Read the masks of all layers at once, independently of their weights."""

    def __call__(
        self,
        settings: S_contra,
        shapes: Mapping[str, tuple[int, int]],
        patterns: Mapping[str, Pattern],
        model: str | None,
    ) -> Mapping[str, torch.Tensor]:
        """Return masks (rows, inputs) bool by layer name.

        Parameters
        ----------
        shapes, patterns
            Rows and inputs, and the pattern, of every prunable layer by name.
        model
            The model's identity; None: it is not known.

        Raises
        ------
        ArtifactError
            If the file is missing, damaged, or of another model.
        PatternError
            If a mask is missing, or has the wrong shape or counts.
        """


@dataclass(frozen=True)
class Method(Generic[S]):
    """The properties that every method declares.

    Attributes
    ----------
    settings
        The class of its settings.
    summary, source
        One line for tables, and the paper.
    supports, limits
        Predicate for the supported patterns, and the reason why others are not supported.
    updates_weights
        Whether it also changes the kept weights.
    """

    settings: type[S]
    summary: str
    source: str = ""
    supports: Callable[[Pattern], bool] = lambda _pattern: True
    limits: str = ""
    updates_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class WarmStart(Method[S]):
    """A method that chooses the first mask, by exactly one of three functions.

    Attributes
    ----------
    saliency
        Scores of a layer's weights; the highest of each group are kept.
    choose
        The mask of a layer.
    read
        The masks of all layers.
    """

    saliency: Saliency[S] | None = None
    choose: Choose[S] | None = None
    read: ReadMasks[S] | None = None

    def layer_mask(self, weight: torch.Tensor, gram: torch.Tensor, pattern: Pattern, settings: S) -> torch.Tensor:
        """Return the mask (rows, inputs) bool of one layer, by ``choose`` or ``saliency``.

        Raises
        ------
        NumericalError
            If a score is NaN.
        PatternError
            If the pattern does not fit the weight.
        """
        if self.choose is not None:
            mask = self.choose(weight, gram, pattern, settings)
        elif self.saliency is not None:
            mask = select(self.saliency(weight, gram, settings), pattern)
        else:
            raise TypeError(f"{settings.method} reads the masks of all layers; it cannot choose that of a single layer")
        check_mask(mask, weight, pattern)
        return mask


@dataclass(frozen=True, kw_only=True)
class Refiner(Method[S]):
    """A method that improves a mask, or the kept weights.

    Attributes
    ----------
    refine
        The function that refines one layer.
    monotone
        Whether it never raises the pruning error of a matrix, by its default settings.
    accepts_cpu_gram
        Whether the Gram matrix may be on the CPU when the weight is on another device.
    extra_inputs
        Which fields of :class:`ExtraInputs` it uses.
    workspace
        Peak memory for groups within rows; a group that spans the whole matrix needs more.
    """

    refine: Refine[S]
    monotone: bool = True
    accepts_cpu_gram: bool = False
    extra_inputs: tuple[str, ...] = ()
    workspace: Workspace = SWAPS
