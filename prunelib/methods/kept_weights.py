"""Kept weights passed from step to step of a chain, and the safeguard that no step increases the error."""

from typing import NamedTuple

import torch

from prunelib.algebra.objective import refit_losses
from prunelib.algebra.tensors import real
from prunelib.errors import NumericalError
from prunelib.methods.contract import ExtraInputs, Progress, Refined


class KeptWeights(NamedTuple):
    """A mask (rows, inputs) bool, True = kept, and its weights (rows, inputs) float32, +0.0 where pruned."""

    mask: torch.Tensor
    weight: torch.Tensor


def kept_weights(weight: torch.Tensor, mask: torch.Tensor) -> KeptWeights:
    """Apply a mask (rows, inputs) to a weight (rows, inputs) of any float dtype."""
    return KeptWeights(mask, weight.float().masked_fill(~mask, 0))


def starting_weights(weight: torch.Tensor, mask: torch.Tensor, extra: ExtraInputs) -> KeptWeights:
    """Return the weights that a refiner starts from: those of the previous step of a chain, or else the model's.

    Parameters
    ----------
    weight, mask
        (rows, inputs), any float dtype; (rows, inputs) bool, True = kept.

    Raises
    ------
    NumericalError
        If ``extra.updated_weight`` does not fit the weight, or a kept one is NaN or infinite.
    """
    if extra.updated_weight is None:
        return kept_weights(weight, mask)
    updated = real("updated_weight", extra.updated_weight)
    if updated.shape != weight.shape or updated.device != weight.device:
        raise NumericalError(
            f"updated_weight: shape {tuple(updated.shape)} on {updated.device}, expected {tuple(weight.shape)} on "
            f"{weight.device}, as the weight"
        )
    kept = kept_weights(updated, mask)
    if not kept.weight.isfinite().all():
        raise NumericalError("updated_weight: NaN or infinity found, expected finite numbers")
    return kept


def the_better(
    weight: torch.Tensor, gram: torch.Tensor, before: KeptWeights, after: KeptWeights, progress: Progress
) -> Refined:
    """Return ``after`` where its error e^T G e, e = w - x, is lower, and ``before`` elsewhere.

    Rows are compared one by one. If the number of kept weights of any row has changed (as under ``PerLayer``), the
    whole matrices are compared instead. An error that is not finite is never lower.

    Parameters
    ----------
    weight, gram
        (rows, inputs) of the model, any float dtype; (inputs, inputs), sum over tokens of x x^T.
    progress
        Called once for all rows.
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
