"""The state of whole rows on the CPU and the bounds of their swaps, shared by all kernels over whole rows, in numba.

Over all pruned j of a row, and over those of a segment s of columns,

    dL(u, j) >= a_u + min_(j in s) b_j - 2 |w_u| reach_us max_(j in s) |w_j| sqrt(G_jj)
    reach_us = max_(j in s) |G_uj| / sqrt(G_jj) over all j but u

so that a scan that looks for swaps below a limit leaves out the u whose bound over the row is not below it, and reads
of the others the segments whose bound is. As most |G_uj| are far below the largest of their row, and most b_j far above
the least, these are few.
"""

from collections.abc import Callable, Iterator
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
from prunelib.kernels.interface import ROUNDING, RowResults
from prunelib.kernels.swaps.cpu_terms import move, prune_term, rounding_of
from prunelib.kernels.swaps.reach import reach_of


class Rows(NamedTuple):
    """A chunk of rows and their state.

    weight (rows, inputs), gram (inputs, inputs), its diag and norm = sqrt(diag) (inputs,), reach (inputs, segments) and
    its largest value over the segments, farthest (inputs,), are float32; mask (rows, inputs) is bool. corr is c = G p
    (rows, inputs) in float64, restore is b_j of the pruned j, BLOCKED where kept, (rows, inputs) in float32. least and
    heavy (rows, segments) are the least b_j and the largest |w_j| norm_j of the pruned j of a segment; lowest and
    heaviest (rows,) are those of a row, largest (rows,) is its largest |b_j|. gain[r, u] is the least change from
    pruning u as a float32 scan found it, BLOCKED where it looked for none, and margin[r, u] bounds its rounding error:
    (rows, inputs) each. starts (segments,) are the first columns of the segments to read for one u, scratch (inputs,)
    is float64. A segment has ``segment`` columns, the last may have fewer; the bounds of ``strip`` segments are
    compared at once, by SIMD.
    """

    weight: np.ndarray
    gram: np.ndarray
    diag: np.ndarray
    norm: np.ndarray
    reach: np.ndarray
    farthest: np.ndarray
    mask: np.ndarray
    corr: np.ndarray
    restore: np.ndarray
    least: np.ndarray
    heavy: np.ndarray
    lowest: np.ndarray
    largest: np.ndarray
    heaviest: np.ndarray
    gain: np.ndarray
    margin: np.ndarray
    starts: np.ndarray
    scratch: np.ndarray
    segment: int
    strip: int


def refine_rows(
    kernel: Callable[[Rows, Figures, int], None],
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    threads: int,
    segment: int,
    strip: int,
) -> Iterator[tuple[slice, RowResults]]:
    """Call a compiled kernel on chunks of rows; its last argument is how many rows of G fit the core's cache.

    ``segment`` and ``strip`` are those of :class:`Rows`.
    """
    weights, grams, diag = weight.contiguous().numpy(), gram.contiguous().numpy(), gram.diagonal().numpy().copy()
    norm, reach = np.sqrt(diag), reach_of(gram, segment).numpy()
    farthest = reach.max(axis=1)

    def work(rows: slice) -> tuple[slice, RowResults]:
        results = RowResults.untouched(mask[rows])
        figures = Figures.of(results)
        inputs, segments = reach.shape
        count, shape = len(figures.mask), figures.mask.shape
        chunk = Rows(
            weight=weights[rows],
            gram=grams,
            diag=diag,
            norm=norm,
            reach=reach,
            farthest=farthest,
            mask=figures.mask,
            corr=np.empty(shape),
            restore=np.empty(shape, np.float32),
            least=np.empty((count, segments), np.float32),
            heavy=np.empty((count, segments), np.float32),
            lowest=np.empty(count, np.float32),
            largest=np.empty(count, np.float32),
            heaviest=np.empty(count, np.float32),
            gain=np.empty(shape, np.float32),
            margin=np.zeros(shape, np.float32),
            starts=np.empty(segments, np.int64),
            scratch=np.empty(inputs),
            segment=segment,
            strip=strip,
        )
        kernel(chunk, figures, tile_rows(grams))
        return rows, results

    return in_chunks(work, len(mask), threads)


@compiled
def begin(rows, figures):
    """Set c = G p, b and the loss of every row; return which rows are active: all."""
    pruned = np.where(rows.mask, np.float32(0.0), rows.weight)
    correlate_rows(pruned, np.arange(len(pruned)), rows.gram, rows.corr)
    for r in range(len(pruned)):
        for start in range(0, rows.diag.size, rows.segment):
            _set_heavy(rows, r, start)
        _move(rows, r, 0, 0.0, 0, 0.0)  # adds nothing to c, and sets b from it
        figures.loss_before[r] = figures.loss_after[r] = loss(rows.weight[r], rows.mask[r], rows.corr[r])
    return np.ones(len(pruned), np.bool_)


@inlined
def swap(rows, r, u, j):
    """Prune u and restore j: p gains w_u at u and loses w_j at j."""
    rows.mask[r, u], rows.mask[r, j] = False, True
    _set_heavy(rows, r, u)
    if u // rows.segment != j // rows.segment:
        _set_heavy(rows, r, j)
    _move(rows, r, u, np.float64(rows.weight[r, u]), j, -np.float64(rows.weight[r, j]))


@inlined
def _set_heavy(rows, r, column):
    """Set the largest |w_j| norm_j of the pruned j of the segment that a column is in."""
    s = column // rows.segment
    part = slice(s * rows.segment, (s + 1) * rows.segment)
    w, m, norm = rows.weight[r, part], rows.mask[r, part], rows.norm[part]
    heavy = np.float32(0.0)
    for j in range(w.size):
        heavy = lesser(np.float32(0.0) if m[j] else -abs(w[j]) * norm[j], heavy)
    rows.heavy[r, s] = -heavy


@inlined
def _move(rows, r, u, pu, j, pj):
    """Add p_u G[:, u] + p_j G[:, j] to c; set b_j of the pruned j and their bounds."""
    w, m, corr, restore, gram = rows.weight[r], rows.mask[r], rows.corr[r], rows.restore[r], rows.gram
    move(w, m, rows.diag, corr, restore, gram[u], pu, gram[j], pj)
    largest, heaviest, lowest = np.float32(0.0), np.float32(0.0), np.float32(BLOCKED)
    least, heavy, segment = rows.least[r], rows.heavy[r], rows.segment
    # Maxima are minima of negated values: ``lesser`` is the form that becomes a SIMD reduction.
    for i in range(w.size):
        largest = lesser(np.float32(0.0) if m[i] else -abs(restore[i]), largest)
    for s in range(heavy.size):
        heaviest = lesser(-heavy[s], heaviest)
        low = np.float32(BLOCKED)
        start = np.uint64(s) * np.uint64(segment)
        for i in range(_length(start, segment, w.size)):
            low = lesser(restore[start + i], low)
        least[s] = low
        lowest = lesser(low, lowest)
    rows.lowest[r], rows.largest[r], rows.heaviest[r] = lowest, -largest, -heaviest


# Indices are unsigned here, since numba checks signed ones for wraparound, which keeps a loop that begins at a computed
# index from SIMD. Lengths are arguments, since a loop of a constant length is unrolled before it becomes SIMD.
@inlined
def _length(start, width, total):
    """Return the columns or segments of the part at ``start``, the last of which may be shorter, unsigned."""
    return min(np.uint64(width), np.uint64(total) - start)


@inlined
def threshold(change, prune, margin):
    """Return the b_j - 2 w_u w_j G_uj below which a swap may change the loss by less than ``change``.

    One margin is for the rounding of a scan, two for that of the bound.
    """
    return change + np.float32(3.0) * margin - np.float32(prune)


@inlined
def bound_over_row(wu, farthest, lowest, heaviest):
    """Bound b_j - 2 w_u w_j G_uj from below over all pruned j of a row."""
    return lowest - np.float32(2.0) * abs(wu) * farthest * heaviest


@inlined
def mark_promising(rows, r, change):
    """Set gain[r, u] to -BLOCKED where pruning u may change the loss by less than ``change``, else to BLOCKED.

    Sets the margin of every u, too.
    """
    w, m, diag, norm, corr, farthest = rows.weight[r], rows.mask[r], rows.diag, rows.norm, rows.corr[r], rows.farthest
    lowest, largest, heaviest, gain, margin = (
        rows.lowest[r],
        rows.largest[r],
        rows.heaviest[r],
        rows.gain[r],
        rows.margin[r],
    )
    for u in range(w.size):
        prune = np.float32(prune_term(w[u], diag[u], corr[u]))
        margin[u] = rounding_of(prune, w[u], norm[u], largest, heaviest)
        below = threshold(change, prune, margin[u])
        promising = m[u] & (bound_over_row(w[u], farthest[u], lowest, heaviest) < below)
        gain[u] = -BLOCKED if promising else BLOCKED


@inlined
def promising_of(gain, columns, chosen):
    """Set ``chosen`` to the u of a range of columns that are marked; return their number."""
    count = 0
    for u in range(columns[0], columns[1]):
        chosen[count] = u  # overwritten by the next u unless u is marked
        count += gain[u] < 0
    return count


# These two take arrays, not rows and r: to slice an array of rows for every u would take longer than what they do.
@inlined
def find_segments(u, wu, below, least, heavy, reach, starts, segment, strip):
    """Set ``starts`` to the segments in which b_j - 2 w_u w_j G_uj may be below a threshold; return their number."""
    twice, count = np.float32(2.0) * abs(wu), 0
    for first in range(0, least.size, strip):
        start = np.uint64(first)
        length = _length(start, strip, least.size)
        low = np.float32(BLOCKED)
        for k in range(length):
            s = start + k
            low = lesser(least[s] - twice * reach[u, s] * heavy[s], low)
        if low < below:
            for k in range(length):
                s = start + k
                starts[count] = s * np.uint64(segment)
                count += least[s] - twice * reach[u, s] * heavy[s] < below
    return count


@inlined
def least_restore_in(u, w, gram, restore, starts, count, segment):
    """Compute min_j (b_j - 2 w_u w_j G_uj) in float32 over the first ``count`` segments of ``starts``."""
    least, wu = np.float32(BLOCKED), w[u]
    for k in range(count):
        start = np.uint64(starts[k])
        for i in range(_length(start, segment, w.size)):
            j = start + i
            least = lesser(restore[j] + np.float32(-2.0) * w[j] * (wu * gram[u, j]), least)
    return least


@inlined
def best_partner(rows, r, u, below):
    """Find in float64 the least change from pruning u, over segments with a b_j - 2 w_u w_j G_uj below a threshold.

    Return it, its j (the lowest of equals), and the rounding-error bound.
    """
    starts, segment = rows.starts, rows.segment
    count = find_segments(
        u, rows.weight[r, u], below, rows.least[r], rows.heavy[r], rows.reach, starts, segment, rows.strip
    )
    change, best = BLOCKED, 0
    for k in range(count):
        found, j = _best_in(rows, r, u, slice(starts[k], starts[k] + segment))
        if found < change:
            change, best = found, starts[k] + j
    return _with_prune_term(rows, r, u, best, change)


@inlined
def best_partner_in_row(rows, r, u):
    """Find in float64 the least change from pruning u, over all pruned j; return as :func:`best_partner`."""
    change, best = _best_in(rows, r, u, slice(0, rows.diag.size))
    return _with_prune_term(rows, r, u, best, change)


@inlined
def _best_in(rows, r, u, part):
    """Find the least change from restoring a j of some columns once u is pruned, and the lowest such j among them."""
    w, m, diag, corr, row = (
        rows.weight[r, part],
        rows.mask[r, part],
        rows.diag[part],
        rows.corr[r, part],
        rows.gram[u, part],
    )
    wu, changes, least = np.float64(rows.weight[r, u]), rows.scratch, BLOCKED
    for j in range(w.size):
        wj = np.float64(w[j])
        changes[j] = BLOCKED if m[j] else wj * (wj * diag[j] - 2.0 * (corr[j] + wu * row[j]))
        least = lesser(changes[j], least)
    return least, first_of(changes[: w.size], least)


@inlined
def _with_prune_term(rows, r, u, j, restore):
    """Return the change of a swap, its j, and the rounding-error bound, given the change from restoring j."""
    prune = prune_term(np.float64(rows.weight[r, u]), rows.diag[u], rows.corr[r, u])
    rounding = ROUNDING * (abs(prune) + abs(rows.restore[r, j]) + abs(restore))
    return prune + restore, j, rounding
