"""SparseSwaps: exact 1-swaps from the Gram matrix, row by row (Zimmer et al., arXiv 2512.10922, algorithm 1)."""

from dataclasses import fields
from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib import settings as base
from prunelib.kernels import engine
from prunelib.kernels.interface import RowResults
from prunelib.kernels.scaling import equilibrate
from prunelib.machine import machine
from prunelib.objective import check_layer
from prunelib.patterns import Pattern, check_mask, swap_columns
from prunelib.refined import Progress, Refined, silent
from prunelib.registry import About

ABOUT = About(
    "swap a kept for a pruned weight as long as that lowers the error: at most `max_swaps` best ones a row, or to the "
    "1-swap optimum",
    source="Zimmer et al., [2512.10922](https://arxiv.org/abs/2512.10922)",
)


class Settings(base.Settings):
    """Settings of SparseSwaps.

    Attributes
    ----------
    max_swaps
        The papers' T: at most so many swaps a row, always the best one. None: sweep until no swap improves any row,
        which is faster than best swaps to the optimum.
    """

    method: Literal["sparseswaps"] = "sparseswaps"
    max_swaps: Annotated[int, Field(ge=1)] | None = None


_DEFAULT = Settings()


def refine(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: Settings = _DEFAULT,
    progress: Progress = silent,
) -> Refined:
    """Swap kept for pruned weights, within the pattern's groups, as long as that lowers the pruning error.

    Parameters
    ----------
    weight
        (rows, inputs), any float dtype. It is not changed.
    gram
        (inputs, inputs) float32, sum over tokens of x x^T.
    mask
        (rows, inputs) bool, True = kept, with the exact counts of the pattern.
    pattern
        ``PerRow`` or ``NOfM``: a swap stays within a row, or within a group of M.
    progress
        Told about rows as they are finished.

    Returns
    -------
    Refined
        With the same number kept in every group; on one device the same for any number of threads.

    Raises
    ------
    NumericalError
        If a weight or Gram entry is NaN or infinite, or the shapes do not fit.
    PatternError
        If the mask does not have the pattern's counts.
    """
    check_layer(weight, gram)
    check_mask(mask, weight, pattern)
    scaled = equilibrate(weight, gram)
    group, kernels = swap_columns(pattern, weight.shape[1]), engine(weight.device, "swaps")
    problem = (scaled.weight, scaled.gram, mask, group)
    if settings.max_swaps is None:
        finished = kernels.swap_to_optimum(*problem, machine().threads)
    else:
        finished = kernels.swap_best(*problem, settings.max_swaps, machine().threads)
    results = RowResults.untouched(mask)
    loss_scale = scaled.loss_scale.cpu()
    for rows, part in finished:
        for field in fields(RowResults):
            getattr(results, field.name)[rows] = getattr(part, field.name)
        before, after = ((loss * loss_scale[rows]).sum() for loss in (part.loss_before, part.loss_after))
        progress(rows.stop - rows.start, float(before), float(after))
    return Refined(
        mask=results.mask.to(mask.device),
        loss_before=results.loss_before * loss_scale,
        loss_after=results.loss_after * loss_scale,
        swaps=results.swaps,
        sweeps=results.sweeps,
        optimal=results.optimal,
    )
