"""Swaps on a GPU: one kernel makes all best swaps of a row (:mod:`.cuda_best`, within groups :mod:`.cuda_groups`).

In sweeps to the optimum, a kernel of :mod:`.cuda_scan` scans all pairs once, and those of :mod:`.cuda_sweeps` do the
rest.

Device memory in addition to the weight and the Gram matrix: 17 bytes for each weight of a chunk (at most a quarter of
the rows), a strip of the Gram matrix in float64, and for bounds, for every SEGMENT columns, one float32 a row of the
Gram matrix and two a row of the chunk.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import triton

from prunelib.kernels.cuda_chunks import correlate, in_chunks, row_tiles, whole_row
from prunelib.kernels.interface import MAX_SWEEPS, RowResults
from prunelib.kernels.swaps import cuda_kernels as swap_kernels
from prunelib.kernels.swaps import cuda_scan as scan_kernels
from prunelib.kernels.swaps import cuda_sweeps as sweep_kernels
from prunelib.kernels.swaps.cuda_best import best_swaps
from prunelib.kernels.swaps.cuda_groups import best_swaps_in_groups
from prunelib.kernels.swaps.reach import reach_of

TILE = {"ROWS": 8, "KEPT": 128, "PRUNED": 8, "num_warps": 1}
"""What one program scans: each thread has 32 (row, kept column) pairs in registers."""

_BEGIN_TILE = {"TILE": 1024, "num_warps": 8}
_VISIT = {"FEW": 8}
_SCAN = {"STRIP": 128, "COLUMNS": 128, "num_warps": 1}
SEGMENT = 32
"""Consecutive columns j that share a bound."""


def swap_best(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, max_swaps: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Make the best swap of each row, at most ``max_swaps`` times; see :mod:`prunelib.kernels.swaps`."""
    del threads  # of the CPU
    inputs, gram = len(gram), gram.contiguous()
    if group < inputs:
        kernel, settings = best_swaps_in_groups, {"near": _near(gram, group), "group": group, **row_tiles(inputs)}
    else:
        kernel, settings = best_swaps, {**_bounds(gram), **whole_row(inputs)}

    def swap(rows: Rows) -> None:
        kernel[(len(rows.loss),)](**rows._asdict(), inputs=inputs, limit=max_swaps, **settings)

    return _refine(swap, weight, gram, mask)


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Swap until no swap improves a row; see :mod:`prunelib.kernels.swaps`."""
    if group < len(gram):
        return swap_best(weight, gram, mask, group, MAX_SWEEPS, threads)
    gram = gram.contiguous()
    bounds = _bounds(gram)
    return _refine(lambda rows: _sweep(rows, bounds), weight, gram, mask)


class Rows(NamedTuple):
    """A chunk of rows and their state; a field has the name of the kernels' parameter.

    weight (rows, inputs), gram (inputs, inputs) and its diagonal (inputs,) are float32; corr is c = G p, (rows, inputs)
    float64; restore, (rows, inputs) float32, is described in :mod:`.cuda_kernels`; the others are (rows,).
    """

    weight: torch.Tensor
    gram: torch.Tensor
    diagonal: torch.Tensor
    corr: torch.Tensor
    restore: torch.Tensor
    loss: torch.Tensor
    swaps: torch.Tensor
    sweeps: torch.Tensor
    optimal: torch.Tensor


def _bounds(gram: torch.Tensor) -> dict[str, Any]:
    """Return what bounds over segments of columns need of G, named as parameters of the kernels."""
    segment = min(SEGMENT, triton.next_power_of_2(len(gram)))
    reach = reach_of(gram, segment)
    return {"reach": reach, "farthest": reach.amax(dim=1), "SEGMENT": segment}


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
    restore = torch.empty_like(weight)
    loss = torch.empty(len(mask), dtype=torch.float64, device=weight.device)
    swaps, sweeps = torch.zeros((2, len(mask)), dtype=torch.int64, device=weight.device)
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
        weight=weight,
        gram=gram,
        diagonal=diagonal,
        corr=corr,
        restore=restore,
        loss=loss,
        swaps=swaps,
        sweeps=sweeps,
        optimal=torch.zeros_like(loss, dtype=torch.bool),
    )


def scan(rows: Rows) -> torch.Tensor:
    """Compute min_j (b_j - 2 w_u w_j G_uj) of every u, (rows, inputs) float32, from all pairs."""
    count, inputs = rows.weight.shape
    operands = {"weight": rows.weight, "gram": rows.gram, "restore": rows.restore}
    least = torch.empty_like(rows.weight)
    grid = (triton.cdiv(count, TILE["ROWS"]), triton.cdiv(inputs, TILE["KEPT"]))
    scan_kernels.scan_rows[grid](**operands, least=least, count=count, inputs=inputs, **TILE)
    return least


def _sweep(rows: Rows, bounds: dict[str, Any]) -> None:
    """Scan all pairs, then visit, and scan within bounds, until no row is active; rows that are done are dropped."""
    count, inputs = rows.weight.shape
    segments = bounds["reach"].shape[1]
    near_restore, near_size = rows.weight.new_empty(2, count, segments)
    scanned = {
        **{name: getattr(rows, name) for name in ("weight", "gram", "diagonal", "corr", "restore")},
        **bounds,
        "near_restore": near_restore,
        "near_size": near_size,
        "largest": rows.weight.new_empty(count),
        "least": scan(rows),
        "inputs": inputs,
    }
    visited = {
        **{name: getattr(rows, name) for name in ("loss", "swaps", "sweeps", "optimal")},
        "active": torch.empty_like(rows.optimal),
        "limit": MAX_SWEEPS,
    }
    left = torch.arange(count, device=rows.weight.device)
    while True:
        sweep_kernels.visit[(len(left),)](rows=left, **scanned, **visited, **_VISIT, **whole_row(inputs))
        left = left[visited["active"][left]]
        if len(left) == 0:
            return
        grid = (len(left), triton.cdiv(inputs, _SCAN["COLUMNS"]))
        sweep_kernels.scan_again[grid](rows=left, **scanned, SEGMENTS=triton.next_power_of_2(segments), **_SCAN)
