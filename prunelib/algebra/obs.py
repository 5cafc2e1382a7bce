"""Optimal Brain Surgeon, column by column, as in SparseGPT (Frantar & Alistarh, arXiv 2301.00774, algorithm 1).

Columns are visited from left to right and then frozen. If a row prunes column j, the columns R from j on are updated to
compensate optimally: with H the damped G, and F the inverse of H over R,

    w_R -= w_j / F_jj * F_j,R        which costs  w_j^2 / F_jj

The rows of all these F follow from the upper triangular U with U^T U = H^-1: F_j,R = U_jj U_j,R.
"""

from collections.abc import Callable

import torch

from prunelib.algebra.linalg import inverse_factor, product
from prunelib.algebra.objective import damped

BLOCK = 128
DAMPING = 0.01

Costs = Callable[[slice], torch.Tensor]
"""Maps a slice of columns to their costs w_j^2 / F_jj, (rows, columns) float64."""

Choice = Callable[[slice, Costs], torch.Tensor]
"""A choice of mask: maps a slice of columns, and the costs of these and all later columns, to the mask (rows, columns)
of the slice, True = kept."""


def prune_columns(
    weight: torch.Tensor,
    gram: torch.Tensor,
    choose: Choice,
    damping: float = DAMPING,
    block: int = BLOCK,
    width: int = BLOCK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prune column by column, in float64, and update the columns to the right to compensate.

    Parameters
    ----------
    weight, gram
        (rows, inputs), any float dtype; (inputs, inputs), sum over tokens of x x^T.
    choose
        Chooses the mask of ``width`` columns when the first of them is reached. All columns before it are done, and the
        costs are those of the updated weights; beyond the block, updated only for the preceding blocks.
    damping
        H = G + damping * mean(diag G) * I.
    block
        Number of columns per block, a multiple of ``width``. Columns beyond a block are updated when it is complete, in
        one product.

    Returns
    -------
    tuple
        The mask (rows, inputs) bool, and the weights (rows, inputs) float32, +0.0 where pruned.

    Raises
    ------
    NumericalError
        If H is not positive definite.
    """
    U = inverse_factor(_hessian(gram, damping))
    W = weight.to(torch.float64, copy=True)
    mask = torch.empty_like(W, dtype=torch.bool)
    rows, inputs = W.shape

    def costs(columns: slice) -> torch.Tensor:
        return (W[:, columns] / U.diagonal()[columns]) ** 2

    for start in range(0, inputs, block):
        stop = min(start + block, inputs)
        errors = W.new_empty(rows, stop - start)
        for first in range(start, stop, width):
            columns = slice(first, min(first + width, stop))
            mask[:, columns] = choose(columns, costs)
            for j in range(columns.start, columns.stop):
                error = (W[:, j] / U[j, j]).masked_fill(mask[:, j], 0)
                W[:, j:stop] -= error[:, None] * U[j, j:stop]
                errors[:, j - start] = error
        W[:, stop:] -= product(errors, U[start:stop, stop:])
    return mask, W.float().masked_fill(~mask, 0)


def _hessian(gram: torch.Tensor, damping: float) -> torch.Tensor:
    """Return the damped G, or the identity if all inputs are dead."""
    H = damped(gram.double(), damping)
    return H if H.any() else torch.eye(len(H), dtype=H.dtype, device=H.device)
