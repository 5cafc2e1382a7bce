"""Best swaps within whole rows, one program a row and one launch for all swaps.

To find the best swap, a scan need not find the least change of every u (:mod:`.cpu_best`). The u are taken in the order
of a bound over the whole row, beginning with the runner-up of the scan before, until the bound is above the least
change that was found. Of each, only the segments of columns are read whose bound is below it:

    dL(u, j) >= a_u + min_(j in s) b_j - 2 |w_u| reach_us max_(j in s) |w_j| sqrt(G_jj)        for the pruned j of s

Scans run in float32, and float64 decides among the u that they leave.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import INFINITY, prune_term
from prunelib.kernels.swaps.cuda_kernels import best_pair, rounding_margin, swap


@triton.jit(do_not_specialize=["limit"])
def best_swaps(
    weight, gram, diagonal, reach, farthest, corr, restore, loss, swaps, sweeps, optimal,
    inputs: tl.constexpr, SEGMENT: tl.constexpr, limit, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Make the best swap of a row, at most ``limit`` times; a row without one is optimal.

    reach is (inputs, segments) and farthest (inputs,) its largest value over the segments.
    """
    r = tl.program_id(0).to(tl.int64)
    weight, corr, restore = weight + r * inputs, corr + r * inputs, restore + r * inputs
    columns = tl.arange(0, BLOCK)
    inside = columns < inputs
    w = tl.load(weight + columns, mask=inside, other=0.0)
    d = tl.load(diagonal + columns, mask=inside, other=0.0)
    far = tl.load(farthest + columns, mask=inside, other=0.0)
    size, current = tl.abs(w) * tl.sqrt(d), tl.load(loss + r)
    made, scans, runner_up, goes_on = 0, 0, 0, 1
    while goes_on > 0:
        b = tl.load(restore + columns, mask=inside, other=INFINITY)  # (BLOCK,), infinite where kept
        c = tl.load(corr + columns, mask=inside, other=0.0)
        prune = prune_term(w.to(tl.float64), d.to(tl.float64), c).to(tl.float32)
        heavy = tl.where(b < INFINITY, size, 0.0)
        largest_restore, largest_size = tl.max(tl.where(b < INFINITY, tl.abs(b), 0.0), 0), tl.max(heavy, 0)
        margin = rounding_margin(prune, size, largest_restore, largest_size)
        # The bound over the whole row; three margins, one for the rounding of a scan, two for that of the bound.
        bound = prune + tl.min(b, 0) - 2.0 * tl.abs(w) * far * largest_size - 3.0 * margin
        bound = tl.where(inside & (b == INFINITY), tl.where(columns == runner_up, -INFINITY, bound), INFINITY)
        gain, reachable = _scan(
            bound, b, w, heavy, weight, gram, diagonal, reach, corr, largest_restore, largest_size, inputs, SEGMENT
        )
        candidate = (gain - margin < 0.0) & (gain - margin <= reachable)
        best_u, best_j = best_pair(candidate, current, weight, gram, diagonal, corr, restore, inputs, TILE)
        _, runner_up = tl.min(tl.where(columns == best_u, INFINITY, gain), 0, return_indices=True)
        scans += 1
        tl.store(optimal + r, best_u < 0)
        goes_on = ((best_u >= 0) & (made < limit)).to(tl.int32)
        if goes_on > 0:
            current = swap(best_u, best_j, weight, gram, diagonal, corr, restore, inputs, TILE)
            made += 1
    tl.store(loss + r, current)
    tl.store(swaps + r, made)
    tl.store(sweeps + r, scans)


@triton.jit
def _scan(
    waiting, b, w, heavy, weight, gram, diagonal, reach, corr, largest_restore, largest_size,
    inputs: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """Find the least change from pruning each u that may have the best swap, and what the best change is at most.

    ``waiting`` is the bound over the whole row of each u, infinite where pruned; the first returned is infinite where
    it was not needed. The vectors are (BLOCK,) in float32.
    """
    columns = tl.arange(0, waiting.shape[0])
    segments: tl.constexpr = (inputs + SEGMENT - 1) // SEGMENT
    least_near, heavy_near = _least_of_segment(b, SEGMENT), -_least_of_segment(-heavy, SEGMENT)
    gain, reachable = tl.full(waiting.shape, INFINITY, tl.float32), largest_size * 0.0
    lowest, u = tl.min(waiting, 0, return_indices=True)
    while lowest < reachable:
        wu, du = tl.load(weight + u), tl.load(diagonal + u)
        prune = prune_term(wu.to(tl.float64), du.to(tl.float64), tl.load(corr + u)).to(tl.float32)
        margin = rounding_margin(prune, tl.abs(wu) * tl.sqrt(du), largest_restore, largest_size)
        row = u.to(tl.int64)
        near = tl.load(reach + row * segments + columns // SEGMENT, mask=columns < inputs, other=0.0)
        read = least_near - 2.0 * tl.abs(wu) * near * heavy_near < reachable + 3.0 * margin - prune
        read &= columns < inputs
        g = tl.load(gram + row * inputs + columns, mask=read, other=0.0)
        change = prune + tl.min(tl.where(read, b - 2.0 * wu * (w * g), INFINITY), 0)
        gain = tl.where(columns == u, change, gain)
        reachable = tl.minimum(reachable, change + margin)
        waiting = tl.where(columns == u, INFINITY, waiting)
        lowest, u = tl.min(waiting, 0, return_indices=True)
    return gain, reachable


@triton.jit
def _least_of_segment(values, SEGMENT: tl.constexpr):
    """Return for each value (BLOCK,) the least of its segment."""
    BLOCK: tl.constexpr = values.shape[0]
    least = tl.min(tl.reshape(values, (BLOCK // SEGMENT, SEGMENT)), 1, keep_dims=True)
    return tl.reshape(tl.broadcast_to(least, (BLOCK // SEGMENT, SEGMENT)), (BLOCK,))
