"""No refinement: the warm start as it is, so that it stands in the same table."""

from typing import Literal

import torch

from prunelib import settings as base
from prunelib.algebra.objective import check_layer, row_losses
from prunelib.masks.patterns import Pattern, check_mask
from prunelib.methods.refined import Progress, Refined, silent
from prunelib.methods.registry import About

ABOUT = About("the warm start as it is")


class Settings(base.Settings):
    """There is nothing to set."""

    method: Literal["none"] = "none"


_DEFAULT = Settings()


def refine(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: Settings = _DEFAULT,
    progress: Progress = silent,
) -> Refined:
    """Return the mask (rows, inputs) as it came, with its losses; raises as :func:`prunelib.sparseswaps`."""
    check_layer(weight, gram)
    check_mask(mask, weight, pattern)
    losses = row_losses(weight, gram, mask)
    progress(len(mask), float(losses.sum()), float(losses.sum()))
    return Refined(mask, losses, losses)
