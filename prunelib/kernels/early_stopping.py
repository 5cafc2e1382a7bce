"""Early stopping: best swaps in rounds; a row stops when its loss on held-out tokens rises."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from prunelib.algebra.objective import row_losses
from prunelib.kernels.interface import OF_ROWS, RowResults

SwapBest = Callable[[torch.Tensor, torch.Tensor, int], RowResults]
"""Called with the indices of rows (n,), their masks (n, inputs) and the largest number of best swaps to make."""


def swap_until_held_out_rises(
    swap_best: SwapBest,
    mask: torch.Tensor,
    weight: torch.Tensor,
    held_out_gram: torch.Tensor,
    every: int,
    max_swaps: int | None,
) -> Iterator[tuple[torch.Tensor, RowResults]]:
    """Swap ``every`` times, then compute held-out losses; a row whose loss rose returns to its best mask and stops.

    Parameters
    ----------
    mask, weight
        (rows, inputs), True = kept.
    held_out_gram
        (inputs, inputs), of the held-out tokens.
    max_swaps
        Largest number of swaps of a row; None: until no swap improves it.

    Yields
    ------
    tuple
        Indices of rows and their results, as they stop. A row that returned to an earlier mask is not optimal; the
        swaps that were undone are not counted, their scans are.
    """
    gram = held_out_gram.to(weight.device)
    rows = torch.arange(len(mask))
    # No swaps: sets the losses and finds rows that are optimal as they come.
    best, least = swap_best(rows, mask, 0), row_losses(weight, gram, mask).cpu()  # least: (rows,)
    made = 0
    while len(rows):
        limit = every if max_swaps is None else min(every, max_swaps - made)
        found = _continued(best, swap_best(rows, best.mask.to(mask.device), limit))
        losses = row_losses(weight[rows], gram, found.mask.to(mask.device)).cpu()
        rose = losses > least
        best, least = _either(rose, replace(best, sweeps=found.sweeps), found), torch.minimum(losses, least)
        made += limit
        done = rose | best.optimal | (made == max_swaps)
        yield rows[done], _of(best, done)
        rows, best, least = rows[~done], _of(best, ~done), least[~done]


def _continued(before: RowResults, after: RowResults) -> RowResults:
    """Add the counts of the rounds before to those of a round."""
    return replace(
        after,
        swaps=before.swaps + after.swaps,
        sweeps=before.sweeps + after.sweeps,
        loss_before=before.loss_before,
    )


def _either(choice: torch.Tensor, chosen: RowResults, other: RowResults) -> RowResults:
    """Take ``chosen`` for the rows where ``choice`` (rows,) is True, else ``other``."""

    def either(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        return torch.where(choice[:, None] if one.ndim > 1 else choice, one, two)

    rows: dict[str, Any] = {name: either(getattr(chosen, name), getattr(other, name)) for name in OF_ROWS}
    return replace(chosen, **rows)


def _of(results: RowResults, rows: torch.Tensor) -> RowResults:
    """Select the results of some rows, ``rows`` (rows,) bool."""
    return RowResults(**{name: getattr(results, name)[rows] for name in OF_ROWS})
