"""Sweeps within whole rows: visits, one program a row, and scans that read only what a bound leaves.

``rows`` lists the indices of the rows to work on, so that rows that are done are dropped without copying any state. No
program writes what another reads: results do not depend on the order in which programs run.

The first scan of a row evaluates all pairs (:mod:`.cuda_scan`). Later scans, and visits, read for each u only the
segments of columns that may hold a swap that improves: few segments, of few u (benchmarks/speed/gpu_pairs.py counts
them). With reach_us = max_(j in s) |G_uj| / sqrt(G_jj), and for the pruned j of s,

    dL(u, j) >= a_u + min_(j in s) b_j - 2 |w_u| reach_us max_(j in s) |w_j| sqrt(G_jj)

The state of a row is that of :mod:`.cuda_kernels` and the least b_j and largest |w_j| sqrt(G_jj) of the pruned j of
each segment, near_restore and near_size (segments,); largest is its largest |b_j|. least[u] is what a scan found,
min_j (b_j - 2 w_u w_j G_uj) over the columns that it read, (inputs,) in float32, infinite where it read none. reach is
(inputs, segments), and farthest (inputs,) its largest value over the segments.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import INFINITY, prune_term
from prunelib.kernels.swaps.cuda_kernels import TOLERANCE, best_partner, change_of, rounding_margin, swap

_PATIENCE = tl.constexpr(32)  # visits without a swap, after which a scan costs less than more of them


@triton.jit(do_not_specialize=["limit"])
def visit(
    rows, active, weight, gram, diagonal, reach, farthest, corr, restore, near_restore, near_size, largest, least,
    loss, swaps, sweeps, optimal, inputs: tl.constexpr, SEGMENT: tl.constexpr, limit, FEW: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Visit the u of a row, the most promising first, and make the best swap of each under the current c.

    Until the first swap, visits end when all u that may improve were visited, so that a row without a swap is optimal.
    After it, other u may improve than the scan found: visits go on until _PATIENCE of them in succession made no swap,
    since they cost less than the scans that they save. Up to FEW candidates j are evaluated one by one in float64; if
    there are more, the whole row is.
    """
    r = tl.load(rows + tl.program_id(0))
    weight, corr, restore, least = weight + r * inputs, corr + r * inputs, restore + r * inputs, least + r * inputs
    segments: tl.constexpr = (inputs + SEGMENT - 1) // SEGMENT
    segment = tl.arange(0, BLOCK // SEGMENT)  # (segments,), rounded up to a power of two
    columns = segment[:, None] * SEGMENT + tl.arange(0, SEGMENT)[None, :]  # (segments, SEGMENT)
    inside = columns < inputs
    current = tl.load(loss + r)
    least_near, heavy_near, largest_restore = _of_pruned(columns, weight, diagonal, restore, inputs)
    lowest_restore, largest_size = tl.min(least_near, 0), tl.max(heavy_near, 0)
    _, prune, margin = _to_prune(columns, weight, diagonal, corr, largest_restore, largest_size, inputs)
    gain = prune + tl.load(least + columns, mask=inside, other=INFINITY)
    kept = tl.load(restore + columns, mask=inside, other=0.0) == INFINITY
    waiting = tl.where(kept, gain - margin, INFINITY)  # infinite once visited
    lowest, u = _lowest(waiting, columns, inputs)
    made, patience = 0, 0
    while ((lowest < 0.0) & (made == 0)) | ((lowest < INFINITY) & (patience > 0)):
        waiting = tl.where(columns == u, INFINITY, waiting)
        wu, prune_u, margin_u = _to_prune(u, weight, diagonal, corr, largest_restore, largest_size, inputs)
        below, twice = 3.0 * margin_u - prune_u, 2.0 * tl.abs(wu)
        patience -= 1
        # Most visits end here, without any row of G, or after a float32 scan of this u under the current c.
        if lowest_restore - twice * tl.load(farthest + u) * largest_size < below:
            near = tl.load(reach + u.to(tl.int64) * segments + segment, mask=segment < segments, other=0.0)
            read = (least_near - twice * near * heavy_near < below)[:, None] & inside
            changes = _changes(u, wu, columns, read, weight, gram, restore, inputs)  # (segments, SEGMENT)
            value = tl.min(tl.min(changes, 1), 0)
            if prune_u + value < margin_u:
                candidate = changes <= value + 2.0 * margin_u
                if tl.sum(tl.sum(candidate.to(tl.int32), 1), 0) > FEW:
                    change, j, rounding = best_partner(u, weight, gram, diagonal, corr, restore, inputs, TILE)
                else:
                    change, j, rounding = _best_of(candidate, columns, u, weight, gram, diagonal, corr, inputs)
                if change < -(current * TOLERANCE + rounding):
                    current = swap(u, j, weight, gram, diagonal, corr, restore, inputs, TILE)
                    least_near, heavy_near, largest_restore = _of_pruned(columns, weight, diagonal, restore, inputs)
                    lowest_restore, largest_size = tl.min(least_near, 0), tl.max(heavy_near, 0)
                    made += 1
                    patience = _PATIENCE
        lowest, u = _lowest(waiting, columns, inputs)
    sweep = tl.load(sweeps + r) + 1
    tl.store(sweeps + r, sweep)
    tl.store(optimal + r, made == 0)
    tl.store(active + r, (made > 0) & (sweep < limit))
    tl.store(loss + r, current)
    tl.store(swaps + r, tl.load(swaps + r) + made)
    tl.store(near_restore + r * segments + segment, least_near, mask=segment < segments)
    tl.store(near_size + r * segments + segment, heavy_near, mask=segment < segments)
    tl.store(largest + r, largest_restore)


@triton.jit
def scan_again(
    rows, weight, gram, diagonal, reach, farthest, corr, restore, near_restore, near_size, largest, least,
    inputs: tl.constexpr, SEGMENT: tl.constexpr, SEGMENTS: tl.constexpr, STRIP: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Set least of COLUMNS columns u of a row; one warp, so that many wait for memory at once.

    SEGMENTS is the number of segments, rounded up to a power of two. The bounds of STRIP of them are evaluated at once,
    and those that they leave are read one after the other: most u have few, so that a whole strip costs more.
    """
    r = tl.load(rows + tl.program_id(0))
    weight, corr, restore, least = weight + r * inputs, corr + r * inputs, restore + r * inputs, least + r * inputs
    segments: tl.constexpr = (inputs + SEGMENT - 1) // SEGMENT
    near_restore, near_size = near_restore + r * segments, near_size + r * segments
    all_segments = tl.arange(0, SEGMENTS)
    least_near = tl.load(near_restore + all_segments, mask=all_segments < segments, other=INFINITY)
    heavy_near = tl.load(near_size + all_segments, mask=all_segments < segments, other=0.0)
    lowest_restore, largest_size = tl.min(least_near, 0), tl.max(heavy_near, 0)
    largest_restore = tl.load(largest + r)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < inputs
    w, prune, margin = _to_prune(columns, weight, diagonal, corr, largest_restore, largest_size, inputs)
    far = tl.load(farthest + columns, mask=inside, other=0.0)
    kept = tl.load(restore + columns, mask=inside, other=0.0) == INFINITY
    possible = kept & (lowest_restore - 2.0 * tl.abs(w) * far * largest_size < 3.0 * margin - prune)
    found = tl.full((COLUMNS,), INFINITY, tl.float32)
    u = tl.min(tl.where(possible, columns, inputs), 0)
    while u < inputs:
        wu, prune_u, margin_u = _to_prune(u, weight, diagonal, corr, largest_restore, largest_size, inputs)
        below, twice = 3.0 * margin_u - prune_u, 2.0 * tl.abs(wu)
        changes = tl.full((SEGMENT,), INFINITY, tl.float32)
        for first in range(0, segments, STRIP):
            strip = first + tl.arange(0, STRIP)
            within = strip < segments
            b = tl.load(near_restore + strip, mask=within, other=INFINITY)  # (STRIP,)
            size = tl.load(near_size + strip, mask=within, other=0.0)
            near = tl.load(reach + u.to(tl.int64) * segments + strip, mask=within, other=0.0)
            left = b - twice * near * size < below
            segment = tl.min(tl.where(left, strip, segments), 0)
            while segment < segments:
                j = segment * SEGMENT + tl.arange(0, SEGMENT)
                changes = tl.minimum(_changes(u, wu, j, j < inputs, weight, gram, restore, inputs), changes)
                segment = tl.min(tl.where(left & (strip > segment), strip, segments), 0)
        # Finite even where no swap improves: a visit after other swaps often makes one, which saves scans.
        found = tl.where(columns == u, tl.min(changes, 0), found)
        u = tl.min(tl.where(possible & (columns > u), columns, inputs), 0)
    tl.store(least + columns, found, mask=inside)


@triton.jit
def _to_prune(u, weight, diagonal, corr, largest_restore, largest_size, inputs: tl.constexpr):
    """Return w_u, a_u and the bound of the rounding error of a change in float32, for one u or a block of them."""
    inside = u < inputs
    w = tl.load(weight + u, mask=inside, other=0.0)
    d = tl.load(diagonal + u, mask=inside, other=0.0)
    c = tl.load(corr + u, mask=inside, other=0.0)
    prune = prune_term(w.to(tl.float64), d.to(tl.float64), c).to(tl.float32)
    return w, prune, rounding_margin(prune, tl.abs(w) * tl.sqrt(d), largest_restore, largest_size)


@triton.jit
def _changes(u, wu, j, read, weight, gram, restore, inputs: tl.constexpr):
    """Compute b_j - 2 w_u w_j G_uj in float32 of the columns j to read, infinite elsewhere."""
    g = tl.load(gram + u.to(tl.int64) * inputs + j, mask=read, other=0.0)
    w = tl.load(weight + j, mask=read, other=0.0)
    return tl.load(restore + j, mask=read, other=INFINITY) - 2.0 * wu * (w * g)


@triton.jit
def _of_pruned(columns, weight, diagonal, restore, inputs: tl.constexpr):
    """Return what bounds need of the pruned j among the columns (segments, SEGMENT).

    That is the least b_j and the largest |w_j| sqrt(G_jj) of each segment (segments,), and the largest |b_j|.
    """
    inside = columns < inputs
    b = tl.load(restore + columns, mask=inside, other=INFINITY)
    w = tl.load(weight + columns, mask=inside, other=0.0)
    d = tl.load(diagonal + columns, mask=inside, other=0.0)
    size = tl.where(b < INFINITY, tl.abs(w) * tl.sqrt(d), 0.0)
    largest = tl.max(tl.max(tl.where(b < INFINITY, tl.abs(b), 0.0), 1), 0)
    return tl.min(b, 1), tl.max(size, 1), largest


@triton.jit
def _lowest(values, columns, inputs: tl.constexpr):
    """Return the least value of a row and its column, the lowest of equals."""
    least = tl.min(tl.min(values, 1), 0)
    return least, tl.min(tl.min(tl.where(values == least, columns, inputs), 1), 0)


@triton.jit
def _best_of(candidate, columns, u, weight, gram, diagonal, corr, inputs: tl.constexpr):
    """Find in float64 the least change from pruning u and restoring a candidate, as :func:`best_partner` does."""
    j = tl.min(tl.min(tl.where(candidate, columns, inputs), 1), 0)
    best_j = j
    prune, best, best_rounding = change_of(u, j, weight, gram, diagonal, corr, inputs)
    j = tl.min(tl.min(tl.where(candidate & (columns > j), columns, inputs), 1), 0)
    while j < inputs:
        _, least, rounding = change_of(u, j, weight, gram, diagonal, corr, inputs)
        better = least < best
        best, best_rounding = tl.where(better, least, best), tl.where(better, rounding, best_rounding)
        best_j = tl.where(better, j, best_j)
        j = tl.min(tl.min(tl.where(candidate & (columns > j), columns, inputs), 1), 0)
    return prune + best, best_j, best_rounding
