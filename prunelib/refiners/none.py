"""No refinement: the warm start unchanged, for comparison in the same table."""

from typing import Literal

import torch

from prunelib.algebra.objective import checked_layer, row_losses
from prunelib.masks.checks import check_mask
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import NOTHING_ELSE, ExtraInputs, MethodSettings, Progress, Refined, Refiner, silent
from prunelib.runtime.compute import AUTO, Compute


class NoRefinement(MethodSettings):
    """No settings besides the method's name."""

    method: Literal["none"] = "none"


_DEFAULT = NoRefinement()


def none(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: NoRefinement = _DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Return the mask unchanged, with its losses; see :class:`prunelib.methods.contract.Refine`."""
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    losses = row_losses(weight, gram, mask)
    progress(len(mask), float(losses.sum()), float(losses.sum()))
    return Refined(mask, losses, losses)


METHOD = Refiner(
    settings=NoRefinement,
    refine=none,
    summary="the warm start as it is",
)
