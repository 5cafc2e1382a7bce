"""SparseGPT's update of the kept weights, for any mask (Frantar & Alistarh, arXiv 2301.00774, algorithm 1).

Column by column, the columns to the right make up for what a row prunes (:mod:`prunelib.algebra.obs`). After the warm
start ``sparsegpt`` with the same dampening this is SparseGPT.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib import settings as base
from prunelib.algebra import obs
from prunelib.algebra.objective import check_layer
from prunelib.masks.patterns import Pattern, check_mask
from prunelib.methods.kept_weights import Survivors, survivors, the_better
from prunelib.methods.refined import Progress, Refined, silent
from prunelib.methods.registry import About, Holds

ABOUT = About(
    "keep the mask; column by column, let the weights to the right make up for what is pruned",
    source="Frantar & Alistarh, [2301.00774](https://arxiv.org/abs/2301.00774)",
    moves_weights=True,
    extras=("moved",),
    holds=Holds(squares=9, weight_bytes=40),
)


class Settings(base.Settings):
    """``dampening``: added to the diagonal of the Hessian, relative to its mean; the paper's 0.01."""

    method: Literal["sparsegpt_update"] = "sparsegpt_update"
    dampening: Annotated[float, Field(gt=0)] = obs.DAMPENING


_DEFAULT = Settings()


def refine(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: Settings = _DEFAULT,
    progress: Progress = silent,
    *,
    moved: torch.Tensor | None = None,
) -> Refined:
    """Update the kept weights of the model by SparseGPT's one pass over the columns.

    A row that would end with a higher error than it came in with stays as it came. The method has no such rule; such
    rows are rare (unless ``moved`` is good).

    Parameters
    ----------
    weight
        (rows, inputs), any float dtype. It is not changed.
    gram
        (inputs, inputs) float32, sum over tokens of x x^T.
    mask
        (rows, inputs) bool, True = kept, with the exact counts of the pattern.
    progress
        Told about all rows at once.
    moved
        (rows, inputs), 0 where pruned: kept weights as they came in. The update does not start from them, but from the
        model's: they are what its error is compared with.

    Returns
    -------
    Refined
        With the same mask, and the weights.

    Raises
    ------
    NumericalError
        If a weight or Gram entry is NaN or infinite, the shapes do not fit, or the Gram matrix is not positive definite
        when damped.
    PatternError
        If the mask does not have the pattern's counts.
    """
    check_layer(weight, gram)
    check_mask(mask, weight, pattern)
    before = survivors(weight if moved is None else moved, mask)
    after = obs.prune_columns(weight, gram, lambda columns, _: mask[:, columns], settings.dampening)
    return the_better(weight, gram, before, Survivors(*after), progress)
