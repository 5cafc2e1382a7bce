"""What a refiner gives back, and how it tells its progress."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Progress = Callable[[int, float, float], None]
"""Called as rows are finished with their number, and the sums of their losses before and after."""


def silent(rows: int, loss_before: float, loss_after: float) -> None:
    """A :data:`Progress` that tells nobody."""


@dataclass(frozen=True)
class Refined:
    """A refined mask and what is known of each row.

    Attributes
    ----------
    mask
        (rows, inputs) bool, True = kept.
    loss_before, loss_after
        (rows,) float64: pruning error of what came in and of what goes out.
    weight
        (rows, inputs) float32: the kept weights where they have moved, +0.0 where pruned; None: those of the model.
    swaps, sweeps
        (rows,) int64: swaps made and scans over all pairs; None where the refiner makes no swaps.
    optimal
        (rows,) bool: proven that no swap improves the row; None where the refiner proves nothing.
    bound
        No mask of the pattern over the model's weights has a lower pruning error of the whole matrix; None: unknown.
    """

    mask: torch.Tensor
    loss_before: torch.Tensor
    loss_after: torch.Tensor
    weight: torch.Tensor | None = None
    swaps: torch.Tensor | None = None
    sweeps: torch.Tensor | None = None
    optimal: torch.Tensor | None = None
    bound: float | None = None
