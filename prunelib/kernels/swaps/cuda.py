"""Swaps on a GPU: kernels of :mod:`.cuda_scan` scan all pairs, those of :mod:`.cuda_kernels` decide row by row.

Best swaps within whole rows are made by one kernel, :mod:`.cuda_best`.

Device memory in addition to the weight and the Gram matrix: 16 bytes for each weight of a chunk (at most a quarter of
the rows), and a strip of the Gram matrix in float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton

from prunelib.kernels.cuda_chunks import correlate, in_chunks, whole_row
from prunelib.kernels.interface import MAX_SWEEPS, RowResults
from prunelib.kernels.swaps import cuda_kernels as swap_kernels
from prunelib.kernels.swaps import cuda_scan as scan_kernels
from prunelib.kernels.swaps.cuda_best import best_swaps
from prunelib.kernels.swaps.reach import reach_of

TILE = {"ROWS": 16, "KEPT": 128, "PRUNED": 4, "num_warps": 2}
"""What one program scans: each thread has 32 (row, kept column) pairs in registers."""

_BEGIN_TILE = {"TILE": 1024, "num_warps": 8}
_GROUPS_TILE = {"KEPT": 256, "num_warps": 2}
SEGMENT = 64
"""Columns j with one bound in scans for best swaps within whole rows."""

_OF_BEST_SWAPS = ("weight", "gram", "diagonal", "corr", "restore", "loss", "swaps", "sweeps", "optimal")
# To ask which rows are active waits for the GPU, so several best swaps are launched before it.
_SWAPS_BETWEEN_LOOKS = 4


def swap_best(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, max_swaps: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Make the best swap of each row, at most ``max_swaps`` times; see :mod:`prunelib.kernels.swaps`."""
    del threads  # of the CPU
    if group < len(gram):
        return _refine(swap_kernels.make_best_swap, weight, gram, mask, group, max_swaps, _SWAPS_BETWEEN_LOOKS)
    return _swap_best(weight, gram, mask, max_swaps)


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Swap until no swap improves a row; see :mod:`prunelib.kernels.swaps`."""
    if group < len(gram):
        return swap_best(weight, gram, mask, group, MAX_SWEEPS, threads)
    return _refine(swap_kernels.visit, weight, gram, mask, group, MAX_SWEEPS, 1)


class Rows(NamedTuple):
    """A chunk of rows and their state; a field has the name of the kernels' parameter.

    weight (rows, inputs), gram (inputs, inputs) and its diagonal (inputs,) are float32; corr is c = G p, (rows, inputs)
    float64; restore and least, (rows, inputs) float32, are described in :mod:`.cuda_kernels`; the others are (rows,).
    """

    active: torch.Tensor
    weight: torch.Tensor
    gram: torch.Tensor
    diagonal: torch.Tensor
    corr: torch.Tensor
    restore: torch.Tensor
    least: torch.Tensor
    loss: torch.Tensor
    swaps: torch.Tensor
    sweeps: torch.Tensor
    optimal: torch.Tensor


def _swap_best(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, max_swaps: int
) -> Iterator[tuple[slice, RowResults]]:
    gram, diagonal = gram.contiguous(), gram.diagonal().contiguous()
    segment = min(SEGMENT, triton.next_power_of_2(len(gram)))
    reach = reach_of(gram, segment)
    farthest = reach.amax(dim=1)

    def work(part: slice) -> tuple[slice, RowResults]:
        rows = begin(weight[part].contiguous(), gram, diagonal, mask[part])
        loss_before = rows.loss.clone()
        operands = {name: getattr(rows, name) for name in _OF_BEST_SWAPS}
        best_swaps[(len(rows.loss),)](
            **operands,
            reach=reach,
            farthest=farthest,
            inputs=len(gram),
            SEGMENT=segment,
            limit=max_swaps,
            **whole_row(len(gram)),
        )
        return part, _results(rows, loss_before)

    return in_chunks(work, weight)


def _refine(
    decide: triton.JITFunction,
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    group: int,
    limit: int,
    steps: int,
) -> Iterator[tuple[slice, RowResults]]:
    gram, diagonal = gram.contiguous(), gram.diagonal().contiguous()

    def work(part: slice) -> tuple[slice, RowResults]:
        rows = begin(weight[part].contiguous(), gram, diagonal, mask[part])
        return part, _finish(rows, decide, group, limit, steps)

    return in_chunks(work, weight)


def begin(weight: torch.Tensor, gram: torch.Tensor, diagonal: torch.Tensor, mask: torch.Tensor) -> Rows:
    """Set up the state of all rows before the first scan."""
    corr = correlate(weight * ~mask, gram)
    restore, least = torch.empty((2, *weight.shape), device=weight.device)
    loss = torch.empty(len(mask), dtype=torch.float64, device=weight.device)
    swaps, sweeps = torch.zeros((2, len(mask)), dtype=torch.int64, device=weight.device)
    optimal, active = torch.zeros_like(loss, dtype=torch.bool), torch.ones_like(loss, dtype=torch.bool)
    swap_kernels.begin[(len(mask),)](
        weight=weight,
        mask=mask.contiguous(),
        diagonal=diagonal,
        corr=corr,
        restore=restore,
        loss=loss,
        inputs=len(gram),
        **_BEGIN_TILE,
    )
    return Rows(
        active=active,
        weight=weight,
        gram=gram,
        diagonal=diagonal,
        corr=corr,
        restore=restore,
        least=least,
        loss=loss,
        swaps=swaps,
        sweeps=sweeps,
        optimal=optimal,
    )


def _finish(state: Rows, decide: triton.JITFunction, group: int, limit: int, steps: int) -> RowResults:
    """Scan and decide until no row is active; after every ``steps`` launches rows that are done are dropped."""
    inputs = len(state.gram)
    loss_before = state.loss.clone()
    rows = torch.arange(len(state.loss), device=state.loss.device)
    while len(rows):
        for _ in range(steps):
            scan(rows, state, group)
            decide[(len(rows),)](
                rows=rows, **state._asdict(), inputs=inputs, group=group, limit=limit, **whole_row(inputs)
            )
        rows = rows[state.active[rows]]
    return _results(state, loss_before)


def _results(state: Rows, loss_before: torch.Tensor) -> RowResults:
    return RowResults(
        mask=state.restore == torch.inf,
        swaps=state.swaps,
        sweeps=state.sweeps,
        loss_before=loss_before,
        loss_after=state.loss,
        optimal=state.optimal,
    ).cpu()


def scan(rows: torch.Tensor, state: Rows, group: int) -> None:
    """Set ``least`` of the numbered ``rows`` (n,) that are active."""
    inputs = len(state.gram)
    operands = {name: getattr(state, name) for name in ("active", "weight", "gram", "restore", "least")}
    if group < inputs:
        grid = (len(rows), triton.cdiv(inputs, _GROUPS_TILE["KEPT"]))
        scan_kernels.scan_groups[grid](rows=rows, **operands, inputs=inputs, group=group, **_GROUPS_TILE)
    else:
        blocks = triton.cdiv(len(rows), TILE["ROWS"])
        # The last row again, to fill the last block: each program reads whole blocks of rows.
        repeated = torch.cat([rows, rows[-1:].expand(blocks * TILE["ROWS"] - len(rows))])
        grid = (blocks, triton.cdiv(inputs, TILE["KEPT"]))
        scan_kernels.scan_rows[grid](rows=repeated, **operands, inputs=inputs, **TILE)
