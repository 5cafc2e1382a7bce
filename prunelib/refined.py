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
        (rows,) float64: pruning error of the mask that came in and of the one that goes out.
    swaps, sweeps
        (rows,) int64: swaps made and scans over all pairs; None where the refiner makes no swaps.
    optimal
        (rows,) bool: proven that no swap improves the row; None where the refiner proves nothing.
    """

    mask: torch.Tensor
    loss_before: torch.Tensor
    loss_after: torch.Tensor
    swaps: torch.Tensor | None = None
    sweeps: torch.Tensor | None = None
    optimal: torch.Tensor | None = None
