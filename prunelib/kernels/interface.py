"""What every engine takes and gives, and when a swap counts as an improvement.

An engine is a module with two functions, generators that yield ``(rows, results)`` as slices of rows are finished, in
any order::

    swap_best(weight, gram, mask, group, max_swaps, threads)      the papers' algorithm: one best swap at a time
    swap_to_optimum(weight, gram, mask, group, threads)           until no swap improves

To the optimum of a whole row an engine may take many swaps between two scans, in any order, which is faster. Within
groups it makes best swaps: sweeps end higher there.

weight (rows, inputs) float32 and gram (inputs, inputs) float32 are equilibrated (:mod:`prunelib.kernels.scaling`); mask
(rows, inputs) bool; swaps stay within ``group`` consecutive columns (``group == inputs``: the whole row).

A swap is made only if it lowers the loss by more than ``LOSS_TOLERANCE`` of the row's loss and by more than what
rounding could feign (``ROUNDING`` times the size of its terms). Among equal swaps the lowest u is taken, then the
lowest j. A row that an engine gives up on is not marked optimal.
"""

from dataclasses import dataclass, fields

import torch

LOSS_TOLERANCE = 1e-10
ROUNDING = 1e-14

FLOAT32_ROUNDING = 4e-7
"""Bounds the relative rounding of a short float32 expression."""

MAX_SWEEPS = 10_000
"""After so many scans an engine gives a row up."""


@dataclass(frozen=True)
class RowResults:
    """Refined rows: each tensor has one entry a row.

    Attributes
    ----------
    mask
        (rows, inputs) bool.
    swaps, sweeps
        (rows,) int64: swaps made, and scans over all pairs; a scan may pass over pairs that cannot improve.
    loss_before, loss_after
        (rows,) float64: p^T G p of the mask that came in and of the one that goes out.
    optimal
        (rows,) bool: the last scan found no swap that improves.
    """

    mask: torch.Tensor
    swaps: torch.Tensor
    sweeps: torch.Tensor
    loss_before: torch.Tensor
    loss_after: torch.Tensor
    optimal: torch.Tensor

    @classmethod
    def untouched(cls, mask: torch.Tensor) -> "RowResults":
        """Rows with a copy of this mask on the processor, no swaps and no losses yet."""
        rows = len(mask)
        swaps, sweeps = torch.zeros((2, rows), dtype=torch.int64)
        loss_before, loss_after = torch.zeros((2, rows), dtype=torch.float64)
        optimal = torch.zeros(rows, dtype=torch.bool)
        return cls(
            mask=mask.to("cpu", copy=True),
            swaps=swaps,
            sweeps=sweeps,
            loss_before=loss_before,
            loss_after=loss_after,
            optimal=optimal,
        )

    def cpu(self) -> "RowResults":
        """Copy what is on a GPU to the CPU."""
        return RowResults(**{field.name: getattr(self, field.name).cpu() for field in fields(self)})
