"""Rows as engines finish them: in the layer's own units, told to whoever waits, and put together."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace

import torch

from prunelib.kernels.interface import RowResults
from prunelib.methods.contract import Progress, Refined

Rows = slice | torch.Tensor
Finished = Iterable[tuple[Rows, RowResults]]
"""Which rows, as a slice or their numbers, and what became of them; every row once, in any order."""


def unscaled(finished: Finished, loss_scale: torch.Tensor) -> Iterator[tuple[Rows, RowResults]]:
    """The same results with losses times ``loss_scale`` (rows,), those of the layer before it was equilibrated."""
    loss_scale = loss_scale.cpu()
    for rows, part in finished:
        scale = loss_scale[rows]
        yield rows, replace(part, loss_before=part.loss_before * scale, loss_after=part.loss_after * scale)


def together(finished: Finished, mask: torch.Tensor) -> RowResults:
    """All rows of a mask (rows, inputs) in order."""
    results = RowResults.untouched(mask)
    for rows, part in finished:
        for field in fields(RowResults):
            getattr(results, field.name)[rows] = getattr(part, field.name)
    return results


def refined(finished: Finished, mask: torch.Tensor, progress: Progress) -> Refined:
    """All rows of a mask (rows, inputs) in order, each told to ``progress`` as it is finished."""
    results = together(_told(finished, progress), mask)
    return Refined(
        mask=results.mask.to(mask.device),
        loss_before=results.loss_before,
        loss_after=results.loss_after,
        swaps=results.swaps,
        sweeps=results.sweeps,
        optimal=results.optimal,
    )


def _told(finished: Finished, progress: Progress) -> Iterator[tuple[Rows, RowResults]]:
    for rows, part in finished:
        progress(len(part.mask), float(part.loss_before.sum()), float(part.loss_after.sum()))
        yield rows, part
