"""SparseGPT's mask, chosen on weights already updated for pruned columns (Frantar & Alistarh, arXiv 2301.00774).

The weights of highest cost w^2 / F_jj (:mod:`prunelib.algebra.obs`) are kept, chosen ``block`` columns at a time.

- Per layer: each block of columns keeps its share of the matrix's count, as in the authors' script, with every
  cumulative count rounded down.
- Per row (not in the paper): a row ranks all its remaining columns against its remaining budget, and a block keeps its
  own weights among the costliest. Shares of blocks differ, counts of rows are exact; equal shares are much worse.
- N:M: each group is chosen when it is reached.

Only the mask is used. This warm start followed by the refiner ``sparsegpt_update`` is SparseGPT.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib.algebra import obs
from prunelib.algebra.objective import checked_layer
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import MethodSettings, WarmStart
from prunelib.settings import MOST_DAMPING, Count


class SparseGPT(MethodSettings):
    """Settings of SparseGPT's mask; the defaults are the paper's.

    Attributes
    ----------
    block
        Number of columns per choice of the mask; N:M: rounded to whole groups, each chosen separately.
    damping
        Added to the diagonal of the Hessian, relative to its mean.
    """

    method: Literal["sparsegpt"] = "sparsegpt"
    block: Count = obs.BLOCK
    damping: Annotated[float, Field(gt=0, le=MOST_DAMPING)] = obs.DAMPING


_DEFAULT = SparseGPT()


def sparsegpt(
    weight: torch.Tensor, gram: torch.Tensor, pattern: Pattern, settings: SparseGPT = _DEFAULT
) -> torch.Tensor:
    """Choose a mask (rows, inputs) bool for weight (rows, inputs) and gram (inputs, inputs); prune dead inputs first.

    Raises
    ------
    NumericalError
        If an entry is NaN or infinite, or the damped Gram matrix is not positive definite.
    PatternError
        If the pattern does not fit the number of inputs.
    """
    weight, gram = checked_layer(weight, gram)
    live = weight.masked_fill(gram.diagonal() <= 0, 0)
    group = pattern.group_columns(weight.shape[1])
    block, width = (max(1, settings.block // group) * group, group) if group else (settings.block, settings.block)
    mask, _ = obs.prune_columns(live, gram, _choice(pattern, live), settings.damping, block, width)
    return mask


METHOD = WarmStart(
    settings=SparseGPT,
    choose=sparsegpt,
    summary="keep the weights that are costliest to prune even after the columns to their right are updated",
    source="Frantar & Alistarh, [2301.00774](https://arxiv.org/abs/2301.00774)",
)


def _choice(pattern: Pattern, weight: torch.Tensor) -> obs.Choice:
    """Return the function that chooses the mask of the next columns of a weight (rows, inputs)."""
    rows, inputs = weight.shape
    keep = pattern.groups(rows, inputs).keep
    left = torch.full((rows, 1), keep, device=weight.device)

    def of_group(columns: slice, costs: obs.Costs) -> torch.Tensor:
        return _costliest(costs(columns), keep)

    def of_row(columns: slice, costs: obs.Costs) -> torch.Tensor:
        mask = _costliest(costs(slice(columns.start, inputs)), left)[:, : columns.stop - columns.start]
        left.sub_(mask.sum(dim=1, keepdim=True))
        return mask

    def of_layer(columns: slice, costs: obs.Costs) -> torch.Tensor:
        count = keep * columns.stop // inputs - keep * columns.start // inputs
        block = costs(columns)
        return _costliest(block.reshape(1, -1), count).reshape(block.shape)

    if pattern.spans_rows:
        return of_layer
    return of_group if pattern.group_columns(inputs) else of_row


def _costliest(costs: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    """Return the mask (rows, n) of the ``count`` highest costs (rows, n) of each row, ties to the left.

    ``count`` is one for all rows, or (rows, 1).
    """
    ranked = costs.sort(dim=1, descending=True, stable=True).indices
    highest = (torch.arange(costs.shape[1], device=costs.device) < count).expand_as(ranked)
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, ranked, highest)
