"""Sweeps over wide rows on the CPU, compiled by numba: in blocks of kept u, and with bounds over segments of columns.

The first sweep of a row is as :mod:`.cpu` makes it: a scan of all kept u, then visits in order of gain. It ends once
visits in a row have made no swap, as by then the scan's gains are out of date. Every later sweep takes the kept u in
blocks of consecutive columns: it scans a block under the current c, visits the u of the block that may improve in order
of gain, and goes on to the next block. So swaps of large gains are made first, and no scan becomes old. A sweep without
a swap has scanned all blocks under one c: it verifies the optimum.

Scans read the segments that may have a swap that improves (:mod:`.cpu_rows`), few in late sweeps.
On narrow rows the sweeps of :mod:`.cpu` are faster: there bounds cost about as much as the pairs that they exclude.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from prunelib.kernels.cpu_common import BLOCKED, compiled, inlined, loss
from prunelib.kernels.interface import LOSS_TOLERANCE, MAX_SWEEPS, RowResults
from prunelib.kernels.swaps.cpu_rows import (
    begin,
    best_partner,
    find_segments,
    least_restore_in,
    refine_rows,
    swap,
    threshold,
)
from prunelib.kernels.swaps.cpu_terms import candidates, least_restores, prune_term, rounding_of


class Sizes(NamedTuple):
    """What is scanned at once, and how long a first sweep lasts.

    block: kept u scanned before they are visited; segment: columns with one bound; strip: segments whose bounds are
    compared at once, by SIMD; failures: visits in a row without a swap that end the first sweep.
    """

    block: int = 256
    segment: int = 32
    strip: int = 32
    failures: int = 16


_SIZES = Sizes()


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, threads: int, sizes: Sizes = _SIZES
) -> Iterator[tuple[slice, RowResults]]:
    """Swap within whole rows until no swap improves; see :mod:`prunelib.kernels.swaps`."""
    limit = MAX_SWEEPS
    sweep = lambda rows, figures, tile: _sweep(rows, figures, limit, tile, sizes.block, sizes.failures)  # noqa: E731
    return refine_rows(sweep, weight, gram, mask, threads, sizes.segment, sizes.strip)


@compiled
def _sweep(rows, figures, max_sweeps, tile, block, failures):
    """Sweep over all rows of a chunk until none has a swap that improves."""
    swaps, sweeps, optimal, losses = figures.swaps, figures.sweeps, figures.optimal, figures.loss_after
    inputs = rows.diag.size
    active = begin(rows, figures)
    width, patience = inputs, failures  # of the first sweep
    while active.any():
        before, ended = swaps.copy(), np.ones(len(active), np.bool_)
        for first in range(0, inputs, width):
            columns = (first, min(first + width, inputs))
            _scan(rows, active, columns, tile)
            for r in np.flatnonzero(active):
                made, ended[r] = _visit(rows, r, columns, losses[r], patience)
                swaps[r] += made
                losses[r] = loss(rows.weight[r], rows.mask[r], rows.corr[r]) if made > 0 else losses[r]
        for r in np.flatnonzero(active):
            sweeps[r] += 1
            optimal[r] = ended[r] and swaps[r] == before[r]
            active[r] = not optimal[r] and sweeps[r] < max_sweeps
        width, patience = block, inputs


@compiled
def _scan(rows, active, columns, tile):
    """Set gain[r, u] = a_u + min_j (b_j - 2 w_u w_j G_uj) in float32 and its margin, for active rows, u in columns."""
    dense = np.empty(columns[1] - columns[0], np.int64)
    for start in range(columns[0], columns[1], tile):
        # All active rows read this tile of G while it is in the core's cache.
        for r in np.flatnonzero(active):
            _scan_row(rows, r, (start, min(start + tile, columns[1])), dense)


@inlined
def _scan_row(rows, r, columns, dense):
    w, m, corr, restore, gain, margin = (
        rows.weight[r],
        rows.mask[r],
        rows.corr[r],
        rows.restore[r],
        rows.gain[r],
        rows.margin[r],
    )
    least, heavy, largest, heaviest = rows.least[r], rows.heavy[r], rows.largest[r], rows.heaviest[r]
    reach, starts, segment, strip = rows.reach, rows.starts, rows.segment, rows.strip
    count = 0
    for u in range(columns[0], columns[1]):
        gain[u] = BLOCKED
        if m[u]:
            prune = prune_term(w[u], rows.diag[u], corr[u])
            margin[u] = rounding_of(np.float32(prune), w[u], rows.norm[u], largest, heaviest)
            below = threshold(np.float32(0.0), prune, margin[u])
            found = find_segments(u, w[u], below, least, heavy, reach, starts, segment, strip)
            if 2 * found > least.size:
                # Over all columns, four u at a time, a pair costs less.
                dense[count] = u
                count += 1
            elif found > 0:
                gain[u] = prune + least_restore_in(u, w, rows.gram, restore, starts, found, segment)
    least_restores(dense[:count], w, rows.gram, restore, gain)
    for u in dense[:count]:
        gain[u] += prune_term(w[u], rows.diag[u], corr[u])


@compiled
def _visit(rows, r, columns, current, patience):
    """Visit each u of the columns that may improve, best first, and make its best swap under the current c.

    Return the number of swaps, and whether all were visited: ``patience`` in a row without a swap end it.
    """
    w, margin, corr, gram, restore = rows.weight[r], rows.margin[r], rows.corr[r], rows.gram, rows.restore[r]
    least, heavy, reach, starts = rows.least[r], rows.heavy[r], rows.reach, rows.starts
    segment, strip = rows.segment, rows.strip
    gain = rows.gain[r, columns[0] : columns[1]]
    made, failed = 0, 0
    for u in columns[0] + candidates(gain, margin[columns[0] : columns[1]]):
        # After a swap gain is out of date: the bounds, then a scan of one u, may save the evaluation in float64.
        prune = prune_term(w[u], rows.diag[u], corr[u])
        below = threshold(np.float32(0.0), prune, margin[u])
        found = find_segments(u, w[u], below, least, heavy, reach, starts, segment, strip)
        low = least_restore_in(u, w, gram, restore, starts, found, segment)
        improves = False
        if prune + low <= margin[u]:
            # In float64 the best j is among those within two margins of the least, and a third for the bound.
            change, j, rounding = best_partner(rows, r, u, low + 3 * margin[u])
            improves = change < -(LOSS_TOLERANCE * current + rounding)
        if improves:
            swap(rows, r, u, j)
            made += 1
            current = max(current + change, 0.0)
        failed = 0 if improves else failed + 1
        if failed == patience:
            return made, False
    return made, True
