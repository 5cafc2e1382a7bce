"""Swaps on a GPU: one kernel makes all best swaps of a row (:mod:`.cuda_best`, within groups :mod:`.cuda_groups`).

In sweeps to the optimum, kernels of :mod:`.cuda_scan` scan all pairs, and those of :mod:`.cuda_kernels` decide.

Device memory in addition to the weight and the Gram matrix: 16 bytes for each weight of a chunk (at most a quarter of
the rows), and a strip of the Gram matrix in float64.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import triton

from prunelib.kernels.cuda_chunks import correlate, in_chunks, row_tiles, whole_row
from prunelib.kernels.interface import MAX_SWEEPS, RowResults
from prunelib.kernels.swaps import cuda_kernels as swap_kernels
from prunelib.kernels.swaps import cuda_scan as scan_kernels
from prunelib.kernels.swaps.cuda_best import best_swaps
from prunelib.kernels.swaps.cuda_groups import best_swaps_in_groups
from prunelib.kernels.swaps.reach import reach_of

TILE = {"ROWS": 16, "KEPT": 128, "PRUNED": 4, "num_warps": 2}
"""What one program scans: each thread has 32 (row, kept column) pairs in registers."""

_BEGIN_TILE = {"TILE": 1024, "num_warps": 8}
SEGMENT = 64
"""Columns j with one bound in scans for best swaps within whole rows."""

_OF_BEST_SWAPS = ("weight", "gram", "diagonal", "corr", "restore", "loss", "swaps", "sweeps", "optimal")


def swap_best(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, max_swaps: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Make the best swap of each row, at most ``max_swaps`` times; see :mod:`prunelib.kernels.swaps`."""
    del threads  # of the CPU
    inputs, gram = len(gram), gram.contiguous()
    if group < inputs:
        kernel, settings = best_swaps_in_groups, {"near": _near(gram, group), "group": group, **row_tiles(inputs)}
    else:
        segment = min(SEGMENT, triton.next_power_of_2(inputs))
        reach = reach_of(gram, segment)
        settings = {"reach": reach, "farthest": reach.amax(dim=1), "SEGMENT": segment, **whole_row(inputs)}
        kernel = best_swaps

    def swap(rows: Rows) -> None:
        operands = {name: getattr(rows, name) for name in _OF_BEST_SWAPS}
        kernel[(len(rows.loss),)](**operands, inputs=inputs, limit=max_swaps, **settings)

    return _refine(swap, weight, gram, mask)


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Swap until no swap improves a row; see :mod:`prunelib.kernels.swaps`."""
    if group < len(gram):
        return swap_best(weight, gram, mask, group, MAX_SWEEPS, threads)
    return _refine(_sweep, weight, gram.contiguous(), mask)


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


def _near(gram: torch.Tensor, group: int) -> torch.Tensor:
    """Return G[u, j] for the k-th column j of u's group at [k, u], (group, inputs)."""
    columns = torch.arange(len(gram), device=gram.device)
    return gram[columns, columns - columns % group + torch.arange(group, device=gram.device)[:, None]]


def _refine(
    swap: Callable[[Rows], None], weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor
) -> Iterator[tuple[slice, RowResults]]:
    """Refine chunks of rows by a function that makes all swaps of one."""
    diagonal = gram.diagonal().contiguous()

    def work(part: slice) -> tuple[slice, RowResults]:
        rows = begin(weight[part].contiguous(), gram, diagonal, mask[part])
        loss_before = rows.loss.clone()
        swap(rows)
        results = RowResults(
            mask=rows.restore == torch.inf,
            swaps=rows.swaps,
            sweeps=rows.sweeps,
            loss_before=loss_before,
            loss_after=rows.loss,
            optimal=rows.optimal,
        )
        return part, results.cpu()

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


def _sweep(state: Rows) -> None:
    """Scan all pairs and visit what the scan leaves until no row is active; rows that are done are dropped."""
    inputs = len(state.gram)
    rows = torch.arange(len(state.loss), device=state.loss.device)
    while len(rows):
        scan(rows, state)
        swap_kernels.visit[(len(rows),)](
            rows=rows, **state._asdict(), inputs=inputs, limit=MAX_SWEEPS, **whole_row(inputs)
        )
        rows = rows[state.active[rows]]


def scan(rows: torch.Tensor, state: Rows) -> None:
    """Set ``least`` of the numbered ``rows`` (n,) that are active."""
    inputs = len(state.gram)
    operands = {name: getattr(state, name) for name in ("active", "weight", "gram", "restore", "least")}
    blocks = triton.cdiv(len(rows), TILE["ROWS"])
    # The last row again, to fill the last block: each program reads whole blocks of rows.
    repeated = torch.cat([rows, rows[-1:].expand(blocks * TILE["ROWS"] - len(rows))])
    grid = (blocks, triton.cdiv(inputs, TILE["KEPT"]))
    scan_kernels.scan_rows[grid](rows=repeated, **operands, inputs=inputs, **TILE)
