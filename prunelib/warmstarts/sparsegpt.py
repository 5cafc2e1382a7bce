"""SparseGPT's mask: chosen on weights that make up for what was pruned before (Frantar & Alistarh, arXiv 2301.00774).

Kept are the weights whose cost w^2 / F_jj (:mod:`prunelib.obs`) is highest. Per layer, ``block`` columns of the matrix
choose together, as in the authors' script; per row, those of each row; for N:M, each group when it is reached. Every
block keeps its share of the pattern's count, rounded so that up to any block the sum is rounded down: counts are exact.

Only the mask is used. SparseGPT itself is this start and then the refiner ``sparsegpt_update``.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib import obs
from prunelib import settings as base
from prunelib.objective import check_layer
from prunelib.patterns import NOfM, Pattern, swap_columns
from prunelib.registry import About

ABOUT = About(
    "keep what costs most to prune once the columns to the right have made up for it",
    source="Frantar & Alistarh, [2301.00774](https://arxiv.org/abs/2301.00774)",
)


class Settings(base.Settings):
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
    rows, inputs = weight.shape
    size, keep = pattern.groups(rows, inputs)
    span = swap_columns(pattern, inputs)

    def costliest(columns: slice, costs: torch.Tensor) -> torch.Tensor:
        count = keep * columns.stop // span - keep * columns.start // span
        return _keep_highest(costs.reshape(rows * span // size, -1), count).reshape(costs.shape)

    live = weight.masked_fill(gram.diagonal() <= 0, 0)
    mask, _ = obs.prune_columns(live, gram, costliest, settings.dampening, *_block_and_width(pattern, settings.block))
    return mask


def _block_and_width(pattern: Pattern, block: int) -> tuple[int, int]:
    """Columns that are updated, and whose mask is chosen, together: N:M chooses group by group."""
    if isinstance(pattern, NOfM):
        return max(1, block // pattern.group) * pattern.group, pattern.group
    return block, block


def _keep_highest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` highest scores of each group (groups, size), ties to the left."""
    ranked = scores.sort(dim=1, descending=True, stable=True).indices
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, ranked[:, :count], value=True)
