"""Kept weights that move from step to step of a chain: what a step starts from, and that it never ends worse."""

from typing import NamedTuple

import torch

from prunelib.algebra.objective import refit_losses
from prunelib.methods.contract import Progress, Refined


class KeptWeights(NamedTuple):
    """A mask (rows, inputs) bool, True = kept, and its weights (rows, inputs) float32, +0.0 where pruned."""

    mask: torch.Tensor
    weight: torch.Tensor


def kept_weights(weight: torch.Tensor, mask: torch.Tensor) -> KeptWeights:
    """What a mask (rows, inputs) leaves of a weight (rows, inputs) of any float dtype."""
    return KeptWeights(mask, weight.float().masked_fill(~mask, 0))


def the_better(
    weight: torch.Tensor, gram: torch.Tensor, before: KeptWeights, after: KeptWeights, progress: Progress
) -> Refined:
    """Take ``after`` where it has the lower error e^T G e, e = w - x; elsewhere leave what came in.

    Each row is taken for itself, unless rows keep other numbers of weights than before (as under ``PerLayer``): then it
    is the whole matrix. Where ``after`` is not finite, it is not better.

    Parameters
    ----------
    weight, gram
        (rows, inputs) of the model, any float dtype; (inputs, inputs), sum over tokens of x x^T.
    progress
        Told about all rows at once.
    """
    loss_before, loss_found = (refit_losses(weight, gram, each.weight) for each in (before, after))
    better = loss_found < loss_before
    if not torch.equal(before.mask.sum(dim=1), after.mask.sum(dim=1)):
        better = (loss_found.sum() < loss_before.sum()).expand(len(better))
    loss_after = loss_found.where(better, loss_before)
    progress(len(better), float(loss_before.sum()), float(loss_after.sum()))
    return Refined(
        mask=after.mask.where(better[:, None], before.mask),
        loss_before=loss_before,
        loss_after=loss_after,
        weight=after.weight.where(better[:, None], before.weight),
    )
