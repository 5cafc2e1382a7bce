"""Swaps on the CPU, compiled by numba: here sweeps within whole rows that are not wide.

Best swaps within whole rows are in :mod:`.cpu_best`, those within groups in :mod:`.cpu_groups`, sweeps over wide rows
in :mod:`.cpu_wide`.

Scans run in float32 with SIMD, decisions in float64 (:mod:`prunelib.kernels.swaps`). The correlation c = G p is in
float64 throughout. Only the u that a bound does not exclude are scanned.

Rows are scanned in chunks, tile by tile of G: a tile that fits the core's cache is read by all rows of a chunk. A row's
result depends neither on its chunk nor on the number of threads.
"""

from collections.abc import Iterator

import numpy as np
import torch

from prunelib.kernels.cpu_common import compiled, loss
from prunelib.kernels.interface import LOSS_TOLERANCE, MAX_SWEEPS, WIDE, RowResults
from prunelib.kernels.swaps import cpu_best, cpu_wide
from prunelib.kernels.swaps import cpu_groups as group_swaps
from prunelib.kernels.swaps.cpu_rows import (
    begin,
    best_partner_in_row,
    bound_over_row,
    mark_promising,
    promising_of,
    refine_rows,
    swap,
    threshold,
)
from prunelib.kernels.swaps.cpu_terms import candidates, least_restore, least_restores, prune_term


def swap_best(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, max_swaps: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Make the best swap of each row, at most ``max_swaps`` times; see :mod:`prunelib.kernels.swaps`."""
    if group < len(gram):
        return group_swaps.swap_best(weight, gram, mask, group, max_swaps, threads)
    return cpu_best.swap_best(weight, gram, mask, max_swaps, threads)


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Swap until no swap improves a row; see :mod:`prunelib.kernels.swaps`."""
    if group < len(gram):
        return group_swaps.swap_best(weight, gram, mask, group, MAX_SWEEPS, threads)
    if len(gram) >= WIDE:
        return cpu_wide.swap_to_optimum(weight, gram, mask, threads)
    most = MAX_SWEEPS
    sweep = lambda rows, figures, tile: _sweep(rows, figures, most, tile)  # noqa: E731
    return refine_rows(sweep, weight, gram, mask, threads, segment=len(gram), strip=1)


@compiled
def _sweep(rows, figures, max_sweeps, tile):
    """Sweep over all rows of a chunk until none has a swap that improves."""
    swaps, sweeps, optimal, losses = figures.swaps, figures.sweeps, figures.optimal, figures.loss_after
    active = begin(rows, figures)
    while active.any():
        _scan(rows, active, tile)
        for r in np.flatnonzero(active):
            sweeps[r] += 1
            made = _visit(rows, r, losses[r])
            swaps[r] += made
            losses[r] = loss(rows.weight[r], rows.mask[r], rows.corr[r])
            optimal[r] = made == 0
            active[r] = made > 0 and sweeps[r] < max_sweeps


@compiled
def _scan(rows, active, tile):
    """Set gain[r, u] = a_u + min_j (b_j - 2 w_u w_j G_uj) in float32, and its margin, for u that may improve."""
    inputs = rows.diag.size
    chosen = np.empty(min(tile, inputs), np.int64)
    for r in np.flatnonzero(active):
        mark_promising(rows, r, np.float32(0.0))
    for start in range(0, inputs, tile):
        # All active rows read this tile of G while it is in the core's cache.
        for r in np.flatnonzero(active):
            w, corr, gain = rows.weight[r], rows.corr[r], rows.gain[r]
            count = promising_of(gain, (start, min(start + tile, inputs)), chosen)
            least_restores(chosen[:count], w, rows.gram, rows.restore[r], gain)
            for u in chosen[:count]:
                gain[u] += prune_term(w[u], rows.diag[u], corr[u])


@compiled
def _visit(rows, r, current):
    """Visit each u that may improve, best first, make its best swap under the current c; return the number of swaps."""
    w, gain, margin = rows.weight[r], rows.gain[r], rows.margin[r]
    made = 0
    for u in candidates(gain, margin):
        # After a swap of this sweep gain is out of date: the bound, then a scan of one u, may save the float64 scan.
        prune = prune_term(w[u], rows.diag[u], rows.corr[r, u])
        bound = bound_over_row(w[u], rows.farthest[u], rows.lowest[r], rows.heaviest[r])
        if not bound < threshold(np.float32(0.0), prune, margin[u]):
            continue
        if prune + least_restore(w[u], w, rows.gram[u], rows.restore[r]) > margin[u]:
            continue
        change, j, rounding = best_partner_in_row(rows, r, u)
        if change < -(LOSS_TOLERANCE * current + rounding):
            swap(rows, r, u, j)
            made += 1
            current = max(current + change, 0.0)
    return made
