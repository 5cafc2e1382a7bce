"""What every backend takes and gives, and when a change of a mask counts as an improvement.

A backend is a module of an operation's package: ``reference`` (plain torch, the specification), ``cpu`` (numba) or
``cuda`` (Triton). The package's docstring derives the operation's formulas and names the functions of its backends. A
function that refines rows is a generator that yields ``(rows, results)``, a slice of rows and their
:class:`RowResults`, with every row once and in any order. It takes

weight
    (rows, inputs) float32.
gram
    (inputs, inputs) float32. Both are equilibrated (:mod:`prunelib.kernels.scaling`) unless the package says otherwise.
mask
    (rows, inputs) bool, True = kept.
group
    Swaps stay within ``group`` consecutive columns; ``group == inputs``: the whole row.
threads
    Threads of a CPU backend; the other backends ignore it.

A change is made only if it lowers the row's loss by more than ``LOSS_TOLERANCE`` times the loss plus the rounding-error
bound, ``ROUNDING`` times the sum of the magnitudes of the change's terms. Without the two, rounding errors alone could
make a row swap forever. Refit swaps have a threshold of their own (:mod:`prunelib.kernels.refit_swaps.reference`).
"""

from dataclasses import dataclass

import torch

from prunelib.methods.contract import Refined

LOSS_TOLERANCE = 1e-10
ROUNDING = 1e-14

FLOAT32_ROUNDING = 4e-7
"""Bounds the relative rounding error of a short float32 expression."""

WIDE = 3072
"""Number of inputs from which the CPU has separate kernels for whole rows."""

MAX_SWEEPS = 10_000
"""Scans after which a row is returned as it is, with ``optimal`` False."""


OF_ROWS = ("mask", "swaps", "sweeps", "loss_before", "loss_after", "optimal")
"""Fields of :class:`RowResults` with one entry a row."""


@dataclass(frozen=True, kw_only=True)
class RowResults(Refined):
    """Rows refined by a kernel, which counts its swaps and says which rows it has proven optimal.

    ``sweeps`` are scans over all pairs; a scan may skip pairs that cannot improve. Losses are p^T G p, or with weights
    x other than w on the kept columns (w - x)^T G (w - x). ``optimal``: the last scan found no swap that improves.
    """

    swaps: torch.Tensor
    sweeps: torch.Tensor
    optimal: torch.Tensor

    @classmethod
    def untouched(cls, mask: torch.Tensor) -> "RowResults":
        """Begin with a copy of a mask (rows, inputs) on the CPU, no swaps and no losses."""
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
        return RowResults(**{name: getattr(self, name).cpu() for name in OF_ROWS})
