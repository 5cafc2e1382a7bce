"""SparseGPT's update of the kept weights, for any mask (Frantar & Alistarh, arXiv 2301.00774, algorithm 1).

Column by column, the columns to the right are updated to compensate for pruned weights (:mod:`prunelib.algebra.obs`).
The warm start ``sparsegpt`` followed by this refiner with the same damping is SparseGPT.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib.algebra import obs
from prunelib.algebra.objective import checked_layer
from prunelib.masks.checks import check_mask
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import (
    NOTHING_ELSE,
    ExtraInputs,
    MethodSettings,
    Progress,
    Refined,
    Refiner,
    silent,
)
from prunelib.methods.kept_weights import KeptWeights, starting_weights, the_better
from prunelib.methods.workspace import Workspace
from prunelib.runtime.compute import AUTO, Compute
from prunelib.settings import MOST_DAMPING


class SparseGPTUpdate(MethodSettings):
    """``damping``: added to the diagonal of the Hessian, relative to its mean; the paper's 0.01."""

    method: Literal["sparsegpt_update"] = "sparsegpt_update"
    damping: Annotated[float, Field(gt=0, le=MOST_DAMPING)] = obs.DAMPING


_DEFAULT = SparseGPTUpdate()


def sparsegpt_update(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: SparseGPTUpdate = _DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Update the model's kept weights in one pass over the columns, as SparseGPT does.

    Arguments and errors: :class:`prunelib.methods.contract.Refine`.

    Safeguard (not in the paper): rows whose error would increase are left unchanged. Such rows are rare, unless
    ``extra.updated_weight``, with which the error is compared, is already good. The update starts from the model's
    weights.

    Raises
    ------
    NumericalError
        Also if the damped Gram matrix is not positive definite.
    """
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    before = starting_weights(weight, mask, extra)
    after = obs.prune_columns(weight, gram, lambda columns, _: mask[:, columns], settings.damping)
    return the_better(weight, gram, before, KeptWeights(*after), progress)


METHOD = Refiner(
    settings=SparseGPTUpdate,
    refine=sparsegpt_update,
    summary="keep the mask; column by column, update the weights to the right to compensate for what is pruned",
    source="Frantar & Alistarh, [2301.00774](https://arxiv.org/abs/2301.00774)",
    updates_weights=True,
    extra_inputs=("updated_weight",),
    workspace=Workspace(squares=9, weight_bytes=40),
)
