"""Partial refit swaps on a GPU: float32 finds the u that may improve, float64 decides, row by row.

Descents take a block of columns of all rows at a time: within it one weight after the other takes its step, then all of
c is updated by one product with the block's rows of G, so that c is read and written once a block. The values are those
of one weight after the other through a whole row, except for the order in which c is summed.

Device memory in addition to the weight and the Gram matrix: at most 28 bytes for each weight of a chunk (at most a
quarter of the rows), and a strip of the Gram matrix in float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton

from prunelib.kernels.cuda_chunks import correlate, in_chunks, whole_row
from prunelib.kernels.interface import MAX_SWEEPS, RowResults
from prunelib.kernels.partial_refit_swaps import cuda_kernels as refit_kernels
from prunelib.kernels.partial_refit_swaps.reference import DESCENTS

TILE = {"ROWS": 16, "KEPT": 128, "PRUNED": 4, "num_warps": 2}
"""What one program scans: each thread has 32 (row, kept column) pairs in registers."""

DESCENT = {"ROWS": 4, "COORDINATES": 64, "num_warps": 1}
"""What one program descends. More columns mean fewer passes over c, but a longer chain of dependent steps."""

_GROUPS_TILE = {"KEPT": 256, "num_warps": 2}


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, start: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults, torch.Tensor]]:
    """Sweep over each row until no swap improves it; see :mod:`prunelib.kernels.partial_refit_swaps.reference`."""
    del threads  # of the CPU
    gram = gram.contiguous()

    def work(part: slice) -> tuple[slice, RowResults, torch.Tensor]:
        state = _begin(weight[part].contiguous(), gram, mask[part], start[part])
        return part, _finish(state, group), state.x

    return in_chunks(work, weight)


class _Rows(NamedTuple):
    """A chunk of rows and their state (:mod:`.cuda_kernels`); a field has the name of the kernels' parameter.

    weight and x are (rows, inputs) float64, closed (rows, inputs) float32, gram (inputs, inputs) float32, inverse
    (inputs,) float64; the others are (rows,).
    """

    weight: torch.Tensor
    gram: torch.Tensor
    inverse: torch.Tensor
    x: torch.Tensor
    closed: torch.Tensor
    swaps: torch.Tensor
    sweeps: torch.Tensor
    loss_before: torch.Tensor
    loss_after: torch.Tensor
    optimal: torch.Tensor


def _begin(weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, start: torch.Tensor) -> _Rows:
    """Set up the state of all rows before the first sweep."""
    closed = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device).masked_fill_(mask, torch.inf)
    swaps, sweeps = torch.zeros((2, len(mask)), dtype=torch.int64, device=mask.device)
    loss_before, loss_after = torch.zeros((2, len(mask)), dtype=torch.float64, device=mask.device)
    optimal = torch.zeros_like(swaps, dtype=torch.bool)
    x, inverse = start.clone(memory_format=torch.contiguous_format), 1 / gram.diagonal().double()
    return _Rows(
        weight=weight,
        gram=gram,
        inverse=inverse,
        x=x,
        closed=closed,
        swaps=swaps,
        sweeps=sweeps,
        loss_before=loss_before,
        loss_after=loss_after,
        optimal=optimal,
    )


def _finish(state: _Rows, group: int) -> RowResults:
    """Sweep and descend until a sweep changes no row."""
    rows = torch.arange(len(state.x), device=state.x.device)
    corr = correlate(state.weight - state.x, state.gram)
    while len(rows):
        _sweep(rows, corr, state, group)
        swapped = ~state.optimal[rows]
        rows, corr = rows[swapped], corr[swapped]
        for _ in range(DESCENTS if len(rows) else 0):
            _descend(rows, corr, state)
        # The kernel sets the loss at the start of a sweep: the descents of a row's last sweep come after that.
        stopped = state.sweeps[rows] >= MAX_SWEEPS
        last = rows[stopped]
        state.loss_after[last] = ((state.weight[last] - state.x[last]) * corr[stopped]).sum(dim=1).clamp(min=0)
        rows, corr = rows[~stopped], corr[~stopped]
    return RowResults(
        mask=state.closed == torch.inf,
        swaps=state.swaps,
        sweeps=state.sweeps,
        loss_before=state.loss_before,
        loss_after=state.loss_after,
        optimal=state.optimal,
    ).cpu()


def _sweep(rows: torch.Tensor, corr: torch.Tensor, state: _Rows, group: int) -> None:
    """Scan the numbered ``rows`` (n,) and visit the u that may improve; changes their corr (n, inputs)."""
    inputs = len(state.gram)
    least = _scan(rows, corr, state, group)
    refit_kernels.visit[(len(rows),)](
        rows=rows, corr=corr, least=least, **state._asdict(), inputs=inputs, group=group, **whole_row(inputs)
    )


def _scan(rows: torch.Tensor, corr: torch.Tensor, state: _Rows, group: int) -> torch.Tensor:
    """Compute least[u] of the numbered ``rows`` (n,), (n, inputs) float32."""
    inputs, scale = len(state.gram), state.inverse.sqrt()
    target: torch.Tensor = torch.empty(corr.shape, dtype=torch.float32, device=corr.device)
    least = torch.empty_like(target)
    torch.mul(corr, scale, out=target)
    operands = {
        "rows": rows,
        "x": state.x,
        "gram": state.gram,
        "scale": scale.float(),
        "closed": state.closed,
        "target": target,
        "least": least,
        "inputs": inputs,
    }
    if group < inputs:
        grid = (len(rows), triton.cdiv(inputs, _GROUPS_TILE["KEPT"]))
        refit_kernels.scan_groups[grid](**operands, group=group, **_GROUPS_TILE)
    else:
        grid = (triton.cdiv(len(rows), TILE["ROWS"]), triton.cdiv(inputs, TILE["KEPT"]))
        refit_kernels.scan_rows[grid](**operands, count=len(rows), **TILE)
    return least


def _descend(rows: torch.Tensor, corr: torch.Tensor, state: _Rows) -> None:
    """Take the best step of each kept weight of the numbered ``rows`` (n,) in turn; changes their corr (n, inputs)."""
    inputs, width = len(state.gram), DESCENT["COORDINATES"]
    steps = torch.empty((len(rows), width), dtype=torch.float64, device=corr.device)
    operands = {name: getattr(state, name) for name in ("gram", "inverse", "x", "closed")}
    programs = triton.cdiv(len(rows), DESCENT["ROWS"])
    for first in range(0, inputs, width):
        refit_kernels.descend[(programs,)](
            rows=rows, corr=corr, **operands, steps=steps, count=len(rows), first=first, inputs=inputs, **DESCENT
        )
        strip = state.gram[first : first + width].double()  # (width, inputs)
        corr.addmm_(steps[:, : len(strip)], strip, alpha=-1)
