"""SparseGPT's mask: chosen on weights that make up for what was pruned before (Frantar & Alistarh, arXiv 2301.00774).

Kept are the weights whose cost w^2 / F_jj (:mod:`prunelib.algebra.obs`) is highest, chosen ``block`` columns at a time.
Per layer, each block of columns keeps its share of the matrix's count, as in the authors' script, rounded so that up to
any block the sum is rounded down. Per row, which the paper has not, a block keeps what is among the costliest that the
row may still keep, the columns after it included: blocks keep different shares and rows their exact counts (equal
shares cost much). For N:M, each group is chosen when it is reached.

Only the mask is used. SparseGPT itself is this start and then the refiner ``sparsegpt_update``.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib.algebra import obs
from prunelib.algebra.objective import check_layer
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import MethodSettings, WarmStart


class Settings(MethodSettings):
    """Settings of SparseGPT's mask; the defaults are the paper's.

    Attributes
    ----------
    block
        Columns whose mask is chosen together; N:M: rounded to whole groups, of which each is chosen for itself.
    dampening
        Added to the diagonal of the Hessian, relative to its mean.
    """

    method: Literal["sparsegpt"] = "sparsegpt"
    block: Annotated[int, Field(ge=1)] = obs.BLOCK
    dampening: Annotated[float, Field(gt=0)] = obs.DAMPENING


_DEFAULT = Settings()


def choose(weight: torch.Tensor, gram: torch.Tensor, pattern: Pattern, settings: Settings = _DEFAULT) -> torch.Tensor:
    """The mask (rows, inputs) bool for weight (rows, inputs) and gram (inputs, inputs); dead inputs are pruned first.

    Raises
    ------
    NumericalError
        If an entry is NaN or infinite, or the Gram matrix is not positive definite when damped.
    PatternError
        If the pattern does not fit the number of inputs.
    """
    check_layer(weight, gram)
    live = weight.masked_fill(gram.diagonal() <= 0, 0)
    choice = _choice(pattern, *weight.shape)
    mask, _ = obs.prune_columns(live, gram, choice, settings.dampening, *_block_and_width(pattern, settings.block))
    return mask


METHOD = WarmStart(
    settings=Settings,
    choose=choose,
    summary="keep what costs most to prune once the columns to the right have made up for it",
    source="Frantar & Alistarh, [2301.00774](https://arxiv.org/abs/2301.00774)",
)


def _choice(pattern: Pattern, rows: int, inputs: int) -> obs.Choice:
    """How the mask of the next columns is chosen."""
    keep = pattern.groups(rows, inputs).keep
    left = torch.full((rows, 1), keep)

    def of_group(columns: slice, costs: torch.Tensor) -> torch.Tensor:
        return _costliest(costs[:, : columns.stop - columns.start], torch.full((rows, 1), keep))

    def of_row(columns: slice, costs: torch.Tensor) -> torch.Tensor:
        mask = _costliest(costs, left)[:, : columns.stop - columns.start]
        left.sub_(mask.sum(dim=1, keepdim=True).cpu())
        return mask

    def of_layer(columns: slice, costs: torch.Tensor) -> torch.Tensor:
        count = keep * columns.stop // inputs - keep * columns.start // inputs
        block = costs[:, : columns.stop - columns.start]
        return _costliest(block.reshape(1, -1), torch.tensor([[count]])).reshape(block.shape)

    if pattern.spans_rows:
        return of_layer
    return of_group if pattern.column_groups else of_row


def _block_and_width(pattern: Pattern, block: int) -> tuple[int, int]:
    """Columns that are updated, and whose mask is chosen, together: N:M chooses group by group."""
    if pattern.column_groups:
        group = pattern.column_groups.size
        return max(1, block // group) * group, group
    return block, block


def _costliest(costs: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The highest costs (rows, n) of each row, as many as its count (rows, 1), ties to the left; bool."""
    ranked = costs.sort(dim=1, descending=True, stable=True).indices
    highest = (torch.arange(costs.shape[1]) < count).to(costs.device)
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, ranked, highest)
