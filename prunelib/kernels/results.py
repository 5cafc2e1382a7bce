"""Results as backends yield them: losses in the layer's own units, progress, and all rows in one record."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from prunelib.kernels.interface import OF_ROWS, RowResults
from prunelib.methods.contract import Progress, Refined

Rows = slice | torch.Tensor
Finished = Iterable[tuple[Rows, RowResults]]
"""Rows, as a slice or their indices, and their results; every row once, in any order."""


def unscaled(finished: Finished, loss_scale: torch.Tensor) -> Iterator[tuple[Rows, RowResults]]:
    """Multiply losses by ``loss_scale`` (rows,), which gives those of the layer before it was equilibrated."""
    loss_scale = loss_scale.cpu()
    for rows, part in finished:
        scale = loss_scale[rows]
        yield rows, replace(part, loss_before=part.loss_before * scale, loss_after=part.loss_after * scale)


def collect_rows(finished: Finished, mask: torch.Tensor) -> RowResults:
    """Collect the results of all rows of a mask (rows, inputs), in the order of the rows."""
    results = RowResults.untouched(mask)
    for rows, part in finished:
        for name in OF_ROWS:
            getattr(results, name)[rows] = getattr(part, name)
    return results


def collect_with_progress(finished: Finished, mask: torch.Tensor, progress: Progress) -> Refined:
    """Collect the results of all rows of a mask (rows, inputs), and call ``progress`` as rows are finished."""
    results = collect_rows(_reported(finished, progress), mask)
    return replace(results, mask=results.mask.to(mask.device))


def _reported(finished: Finished, progress: Progress) -> Iterator[tuple[Rows, RowResults]]:
    for rows, part in finished:
        progress(len(part.mask), float(part.loss_before.sum()), float(part.loss_after.sum()))
        yield rows, part
