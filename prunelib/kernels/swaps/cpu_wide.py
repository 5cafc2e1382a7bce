"""Sweeps over wide rows on the CPU, compiled by numba: in blocks of kept u, and with bounds over segments of columns.

The first sweep of a row is as :mod:`.cpu` makes it: a scan of all kept u, then visits in order of gain. It ends once
visits in a row have made no swap, as by then the scan's gains are out of date. Every later sweep takes the kept u in
blocks of consecutive columns: it scans a block under the current c, visits the u of the block that may improve in order
of gain, and goes on to the next block. So swaps of large gains are made first, and no scan becomes old. A sweep without
a swap has scanned all blocks under one c: it verifies the optimum.

The bound of :mod:`prunelib.kernels.swaps` is evaluated for each segment s of columns,

    dL(u, j) >= a_u + min_(j in s) b_j - 2 |w_u| reach_us max_(j in s) |w_j| sqrt(G_jj)        for the pruned j of s
    reach_us = max_(j in s) |G_uj| / sqrt(G_jj) over all j but u

so that a scan reads the segments that may have a swap that improves, and no others. As most |G_uj| are far below the
largest of their row, and most b_j far above the least, these are few in late sweeps.

On narrow rows the sweeps of :mod:`.cpu` are faster: there bounds cost about as much as the pairs that they exclude.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from prunelib.kernels.cpu_common import (
    BLOCKED,
    Figures,
    compiled,
    correlate_rows,
    first_of,
    in_chunks,
    inlined,
    lesser,
    loss,
    tile_rows,
)
from prunelib.kernels.interface import LOSS_TOLERANCE, MAX_SWEEPS, ROUNDING, RowResults
from prunelib.kernels.swaps.cpu_terms import candidates, least_restores, move, prune_term, reach_of, rounding_of


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
    weights, grams, diag = weight.contiguous().numpy(), gram.contiguous().numpy(), gram.diagonal().numpy().copy()
    reach = reach_of(gram, sizes.segment).numpy()

    def work(rows: slice) -> tuple[slice, RowResults]:
        results = RowResults.untouched(mask[rows])
        figures = Figures.of(results)
        inputs, segments = reach.shape
        count, shape = len(figures.mask), figures.mask.shape
        chunk = _Rows(
            weight=weights[rows],
            gram=grams,
            diag=diag,
            norm=np.sqrt(diag),
            reach=reach,
            mask=figures.mask,
            corr=np.empty(shape),
            restore=np.empty(shape, np.float32),
            least=np.empty((count, segments), np.float32),
            heavy=np.empty((count, segments), np.float32),
            largest=np.empty(count, np.float32),
            heaviest=np.empty(count, np.float32),
            gain=np.empty(shape, np.float32),
            margin=np.zeros(shape, np.float32),
            starts=np.empty(segments, np.int64),
            scratch=np.empty(inputs),
        )
        _sweep(chunk, figures, MAX_SWEEPS, tile_rows(grams), sizes)
        return rows, results

    return in_chunks(work, len(mask), threads)


class _Rows(NamedTuple):
    """A chunk of rows and their state.

    weight (rows, inputs), gram (inputs, inputs), its diag and norm = sqrt(diag) (inputs,) and reach (inputs, segments)
    are float32; mask (rows, inputs) is bool. corr is c = G p (rows, inputs) in float64, restore is b_j of the pruned j,
    BLOCKED where kept, (rows, inputs) in float32. least and heavy (rows, segments) are the least b_j and the largest
    |w_j| norm_j of the pruned j of a segment, largest and heaviest (rows,) the largest |b_j| and |w_j| norm_j of a row.
    gain[r, u] is the least change from pruning u as a float32 scan found it, BLOCKED where none improves, and
    margin[r, u] bounds its rounding error: (rows, inputs) each. starts (segments,) are the first columns of the
    segments to read for one u, scratch (inputs,) is float64.
    """

    weight: np.ndarray
    gram: np.ndarray
    diag: np.ndarray
    norm: np.ndarray
    reach: np.ndarray
    mask: np.ndarray
    corr: np.ndarray
    restore: np.ndarray
    least: np.ndarray
    heavy: np.ndarray
    largest: np.ndarray
    heaviest: np.ndarray
    gain: np.ndarray
    margin: np.ndarray
    starts: np.ndarray
    scratch: np.ndarray


@compiled
def _sweep(rows, figures, max_sweeps, tile, sizes):
    """Sweep over all rows of a chunk until none has a swap that improves."""
    swaps, sweeps, optimal, losses = figures.swaps, figures.sweeps, figures.optimal, figures.loss_after
    inputs = rows.diag.size
    active = _begin(rows, figures, sizes)
    block, failures = inputs, sizes.failures
    while active.any():
        before, ended = swaps.copy(), np.ones(len(active), np.bool_)
        for first in range(0, inputs, block):
            columns = (first, min(first + block, inputs))
            _scan(rows, active, columns, tile, sizes)
            for r in np.flatnonzero(active):
                made, ended[r] = _visit(rows, r, columns, losses[r], failures, sizes)
                swaps[r] += made
                losses[r] = loss(rows.weight[r], rows.mask[r], rows.corr[r]) if made > 0 else losses[r]
        for r in np.flatnonzero(active):
            sweeps[r] += 1
            optimal[r] = ended[r] and swaps[r] == before[r]
            active[r] = not optimal[r] and sweeps[r] < max_sweeps
        block, failures = sizes.block, inputs


@compiled
def _begin(rows, figures, sizes):
    """Set c = G p, b and the loss of every row; return which rows are active: all."""
    pruned = np.where(rows.mask, np.float32(0.0), rows.weight)
    correlate_rows(pruned, np.arange(len(pruned)), rows.gram, rows.corr)
    for r in range(len(pruned)):
        for start in range(0, rows.diag.size, sizes.segment):
            _set_heavy(rows, r, start, sizes)
        _move(rows, r, 0, 0.0, 0, 0.0, sizes)  # adds nothing to c, and sets b from it
        figures.loss_before[r] = figures.loss_after[r] = loss(rows.weight[r], rows.mask[r], rows.corr[r])
    return np.ones(len(pruned), np.bool_)


@inlined
def _swap(rows, r, u, j, sizes):
    """Prune u and restore j: p gains w_u at u and loses w_j at j."""
    rows.mask[r, u], rows.mask[r, j] = False, True
    _set_heavy(rows, r, u, sizes)
    _set_heavy(rows, r, j, sizes)
    _move(rows, r, u, np.float64(rows.weight[r, u]), j, -np.float64(rows.weight[r, j]), sizes)


@inlined
def _set_heavy(rows, r, column, sizes):
    """Set the largest |w_j| norm_j of the pruned j of the segment that a column is in."""
    s = column // sizes.segment
    part = slice(s * sizes.segment, (s + 1) * sizes.segment)
    w, m, norm = rows.weight[r, part], rows.mask[r, part], rows.norm[part]
    heavy = np.float32(0.0)
    for j in range(w.size):
        heavy = lesser(np.float32(0.0) if m[j] else -abs(w[j]) * norm[j], heavy)
    rows.heavy[r, s] = -heavy


@inlined
def _move(rows, r, u, pu, j, pj, sizes):
    """Add p_u G[:, u] + p_j G[:, j] to c; set b_j of the pruned j and their bounds."""
    w, m, corr, restore, gram = rows.weight[r], rows.mask[r], rows.corr[r], rows.restore[r], rows.gram
    move(w, m, rows.diag, corr, restore, gram[u], pu, gram[j], pj)
    largest, heaviest, least, heavy = np.float32(0.0), np.float32(0.0), rows.least[r], rows.heavy[r]
    # Maxima are minima of negated values: ``lesser`` is the form that becomes a SIMD reduction.
    for i in range(w.size):
        largest = lesser(np.float32(0.0) if m[i] else -abs(restore[i]), largest)
    for s in range(heavy.size):
        heaviest = lesser(-heavy[s], heaviest)
        low = np.float32(BLOCKED)
        start = np.uint64(s) * np.uint64(sizes.segment)
        for i in range(_length(start, sizes.segment, w.size)):
            low = lesser(restore[start + i], low)
        least[s] = low
    rows.largest[r], rows.heaviest[r] = -largest, -heaviest


# Indices are unsigned here, since numba checks signed ones for wraparound, which keeps a loop that begins at a computed
# index from SIMD. Lengths are arguments, since a loop of a constant length is unrolled before it becomes SIMD.
@inlined
def _length(start, segment, inputs):
    """Return the columns of the segment at ``start``, the last of which may be shorter, as an unsigned integer."""
    return min(np.uint64(segment), np.uint64(inputs) - start)


@compiled
def _scan(rows, active, columns, tile, sizes):
    """Set gain[r, u] = a_u + min_j (b_j - 2 w_u w_j G_uj) in float32 and its margin, for active rows, u in columns."""
    dense = np.empty(columns[1] - columns[0], np.int64)
    for start in range(columns[0], columns[1], tile):
        # All active rows read this tile of G while it is in the core's cache.
        for r in np.flatnonzero(active):
            _scan_row(rows, r, (start, min(start + tile, columns[1])), dense, sizes)


@inlined
def _scan_row(rows, r, columns, dense, sizes):
    w, m, corr, restore, gain, margin = (
        rows.weight[r],
        rows.mask[r],
        rows.corr[r],
        rows.restore[r],
        rows.gain[r],
        rows.margin[r],
    )
    least, heavy, largest, heaviest = rows.least[r], rows.heavy[r], rows.largest[r], rows.heaviest[r]
    count = 0
    for u in range(columns[0], columns[1]):
        gain[u] = BLOCKED
        if m[u]:
            prune = prune_term(w[u], rows.diag[u], corr[u])
            margin[u] = rounding_of(np.float32(prune), w[u], rows.norm[u], largest, heaviest)
            limit = _limit(prune, margin[u])
            found = _find_segments(u, w[u], limit, least, heavy, rows.reach, rows.starts, sizes)
            if 2 * found > least.size:
                # Over all columns, four u at a time, a pair costs less.
                dense[count] = u
                count += 1
            elif found > 0:
                gain[u] = prune + _least_restore(u, w, rows.gram, restore, rows.starts, found, sizes)
    least_restores(dense[:count], w, rows.gram, restore, gain)
    for u in dense[:count]:
        gain[u] += prune_term(w[u], rows.diag[u], corr[u])


@inlined
def _limit(prune, margin):
    """Return the b_j - 2 w_u w_j G_uj below which a swap may improve: one margin for a scan, two for the bound."""
    return 3 * margin - np.float32(prune)


@inlined
def _find_segments(u, wu, limit, least, heavy, reach, starts, sizes):
    """Set ``starts`` to the segments in which b_j - 2 w_u w_j G_uj may be below a limit; return their number."""
    twice, count = np.float32(2.0) * abs(wu), 0
    for first in range(0, least.size, sizes.strip):
        begin = np.uint64(first)
        length = _length(begin, sizes.strip, least.size)
        low = np.float32(BLOCKED)
        for k in range(length):
            s = begin + k
            low = lesser(least[s] - twice * reach[u, s] * heavy[s], low)
        if low < limit:
            for k in range(length):
                s = begin + k
                starts[count] = s * np.uint64(sizes.segment)
                count += least[s] - twice * reach[u, s] * heavy[s] < limit
    return count


@inlined
def _least_restore(u, w, gram, restore, starts, count, sizes):
    """Compute min_j (b_j - 2 w_u w_j G_uj) in float32 over the first ``count`` segments of ``starts``."""
    least, wu = np.float32(BLOCKED), w[u]
    for k in range(count):
        start = np.uint64(starts[k])
        for i in range(_length(start, sizes.segment, w.size)):
            j = start + i
            least = lesser(restore[j] + np.float32(-2.0) * w[j] * (wu * gram[u, j]), least)
    return least


@compiled
def _visit(rows, r, columns, current, failures, sizes):
    """Visit each u of the columns that may improve, best first, and make its best swap under the current c.

    Return the number of swaps, and whether all were visited: ``failures`` in a row without a swap end it.
    """
    w, margin, corr, gram, restore = rows.weight[r], rows.margin[r], rows.corr[r], rows.gram, rows.restore[r]
    least, heavy, reach, starts = rows.least[r], rows.heavy[r], rows.reach, rows.starts
    gain = rows.gain[r, columns[0] : columns[1]]
    made, failed = 0, 0
    for u in columns[0] + candidates(gain, margin[columns[0] : columns[1]]):
        # After a swap gain is out of date: the bounds, then a scan of one u, may save the evaluation in float64.
        prune = prune_term(w[u], rows.diag[u], corr[u])
        found = _find_segments(u, w[u], _limit(prune, margin[u]), least, heavy, reach, starts, sizes)
        low = _least_restore(u, w, gram, restore, starts, found, sizes)
        improves = False
        if prune + low <= margin[u]:
            # In float64 the best j is among those within two margins of the least, and a third for the bound.
            found = _find_segments(u, w[u], low + 3 * margin[u], least, heavy, reach, starts, sizes)
            change, j, rounding = _best_partner(rows, r, u, found, sizes)
            improves = change < -(LOSS_TOLERANCE * current + rounding)
        if improves:
            _swap(rows, r, u, j, sizes)
            made += 1
            current = max(current + change, 0.0)
        failed = 0 if improves else failed + 1
        if failed == failures:
            return made, False
    return made, True


@inlined
def _best_partner(rows, r, u, count, sizes):
    """Find in float64 the least change from pruning u within the first ``count`` segments of rows.starts.

    Return it, its j (the lowest of equals), and the rounding-error bound.
    """
    w, m, diag, corr, gram, changes = rows.weight[r], rows.mask[r], rows.diag, rows.corr[r], rows.gram, rows.scratch
    wu = np.float64(w[u])
    prune = prune_term(wu, diag[u], corr[u])
    least, best = BLOCKED, 0
    for k in range(count):
        start = np.uint64(rows.starts[k])
        length = _length(start, sizes.segment, w.size)
        low = BLOCKED
        for i in range(length):
            j = start + i
            wj = np.float64(w[j])
            changes[i] = BLOCKED if m[j] else wj * (wj * diag[j] - 2.0 * (corr[j] + wu * gram[u, j]))
            low = lesser(changes[i], low)
        if low < least:
            least, best = low, np.int64(start) + first_of(changes[:length], low)
    rounding = ROUNDING * (abs(prune) + abs(rows.restore[r, best]) + abs(least))
    return prune + least, best, rounding
