"""Decisions about swaps within whole rows, one program a row: float64 evaluates the u that a float32 scan leaves.

``rows`` lists the indices of the rows to work on, so that rows that are done are dropped without copying any state. No
program writes what another reads: results do not depend on the order in which programs run.

State of a row: corr is c = G p in float64; restore is b_j in float32, infinite where kept; least[u] is the result of a
scan (:mod:`.cuda_scan`), min_j (b_j - 2 w_u w_j G_uj); (inputs,) each.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import FLOAT32_ROUNDING, INFINITY, prune_term
from prunelib.kernels.interface import LOSS_TOLERANCE, ROUNDING

_TOLERANCE = tl.constexpr(LOSS_TOLERANCE)
_ROUNDING = tl.constexpr(ROUNDING)
_PATIENCE = tl.constexpr(32)  # visits without a swap, after which a scan costs less than more of them


@triton.jit
def begin(weight, mask, diagonal, corr, restore, loss, inputs: tl.constexpr, TILE: tl.constexpr):
    """Set restore and the loss p^T c of a row from its correlation."""
    row = tl.program_id(0).to(tl.int64)
    losses = tl.zeros((TILE,), tl.float64)
    for start in range(0, inputs, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < inputs
        here = row * inputs + columns
        w = tl.load(weight + here, mask=inside, other=0.0).to(tl.float64)
        d = tl.load(diagonal + columns, mask=inside, other=0.0).to(tl.float64)
        c = tl.load(corr + here, mask=inside, other=0.0)
        pruned = inside & (tl.load(mask + here, mask=inside, other=1) == 0)
        tl.store(restore + here, tl.where(pruned, restore_term(w, d, c), INFINITY).to(tl.float32), mask=inside)
        losses += tl.where(pruned, w * c, 0.0)
    tl.store(loss + row, tl.maximum(tl.sum(losses, 0), 0.0))


@triton.jit(do_not_specialize=["limit"])
def visit(
    rows, active, weight, gram, diagonal, corr, restore, least, loss, swaps, sweeps, optimal,
    inputs: tl.constexpr, limit, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Visit the u of a row, the most promising first, and make the best swap of each under the current c.

    Until the first swap, visits end when all u that may improve were visited, so that a row without a swap is optimal.
    After it, other u may improve than the scan found: visits go on until _PATIENCE of them in succession made no swap,
    since they cost less than the scans that they save.
    """
    r = tl.load(rows + tl.program_id(0))
    if tl.load(active + r).to(tl.int32) == 0:
        return
    weight, corr, restore, least = weight + r * inputs, corr + r * inputs, restore + r * inputs, least + r * inputs
    columns = tl.arange(0, BLOCK)
    inside = columns < inputs
    current = tl.load(loss + r)
    b = tl.load(restore + columns, mask=inside, other=INFINITY)
    gain, margin, largest_restore, largest_size = _gains(weight, diagonal, corr, least, b, columns, inputs)
    waiting = gain - margin  # (BLOCK,), infinite once visited
    lowest, u = tl.min(waiting, 0, return_indices=True)
    made, patience = 0, 0
    while ((lowest < 0.0) & (made == 0)) | ((lowest < INFINITY) & (patience > 0)):
        waiting = tl.where(columns == u, INFINITY, waiting)
        w = tl.load(weight + columns, mask=inside, other=0.0)
        g = tl.load(gram + u.to(tl.int64) * inputs + columns, mask=inside, other=0.0)
        wu, du = tl.load(weight + u), tl.load(diagonal + u)
        # A float32 scan of this u under the current c; most visits end here, without float64 arithmetic.
        value = tl.min(b - 2.0 * wu * (w * g), 0)
        prune = prune_term(wu.to(tl.float64), du.to(tl.float64), tl.load(corr + u)).to(tl.float32)
        patience -= 1
        if prune + value < rounding_margin(prune, tl.abs(wu) * tl.sqrt(du), largest_restore, largest_size):
            change, j, rounding = _best_partner(u, weight, gram, diagonal, corr, restore, inputs, TILE)
            if change < -(current * _TOLERANCE + rounding):
                current = swap(u, j, weight, gram, diagonal, corr, restore, inputs, TILE)
                b = tl.load(restore + columns, mask=inside, other=INFINITY)
                made += 1
                patience = _PATIENCE
        lowest, u = tl.min(waiting, 0, return_indices=True)
    sweep = tl.load(sweeps + r) + 1
    tl.store(sweeps + r, sweep)
    tl.store(optimal + r, made == 0)
    tl.store(active + r, (made > 0) & (sweep < limit))
    tl.store(loss + r, current)
    tl.store(swaps + r, tl.load(swaps + r) + made)


@triton.jit
def _gains(weight, diagonal, corr, least, b, columns, inputs: tl.constexpr):
    """Compute the least change from pruning each u, infinite where pruned, and the bound of its rounding error.

    Also returned for :func:`rounding_margin`: the largest |b_j| and |w_j| sqrt(G_jj) of the pruned j.
    """
    inside = columns < inputs
    w = tl.load(weight + columns, mask=inside, other=0.0)
    d = tl.load(diagonal + columns, mask=inside, other=0.0)
    c = tl.load(corr + columns, mask=inside, other=0.0)
    prune = prune_term(w.to(tl.float64), d.to(tl.float64), c).to(tl.float32)
    pruned = b < INFINITY
    size = tl.abs(w) * tl.sqrt(d)
    largest_restore = tl.max(tl.where(pruned, tl.abs(b), 0.0), 0)
    largest_size = tl.max(tl.where(pruned, size, 0.0), 0)
    gain = prune + tl.load(least + columns, mask=inside, other=INFINITY)
    gain = tl.where(inside & (b == INFINITY), gain, INFINITY)
    return gain, rounding_margin(prune, size, largest_restore, largest_size), largest_restore, largest_size


@triton.jit
def rounding_margin(prune, size, largest_restore, largest_size):
    """Bound the rounding error of a change computed in float32, by the magnitudes of its terms."""
    return (tl.abs(prune) + largest_restore + 2.0 * size * largest_size) * FLOAT32_ROUNDING


@triton.jit
def best_pair(
    candidate, current, weight, gram, diagonal, corr, restore, inputs: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """Find in float64 the best swap of the candidate u (BLOCK,), the lowest u and j of equals; -1 if none improves."""
    BLOCK: tl.constexpr = candidate.shape[0]
    columns = tl.arange(0, BLOCK)
    best, best_u, best_j = current * -_TOLERANCE, -1, -1
    u = tl.min(tl.where(candidate, columns, BLOCK), 0)
    while u < BLOCK:
        change, j, rounding = _best_partner(u, weight, gram, diagonal, corr, restore, inputs, TILE)
        better = (change < best) & (change < -(current * _TOLERANCE + rounding))
        best = tl.where(better, change, best)
        best_u, best_j = tl.where(better, u, best_u), tl.where(better, j, best_j)
        u = tl.min(tl.where(candidate & (columns > u), columns, BLOCK), 0)
    return best_u, best_j


@triton.jit
def _best_partner(u, weight, gram, diagonal, corr, restore, inputs: tl.constexpr, TILE: tl.constexpr):
    """Find in float64 the least change from pruning u, its j (the lowest of equals), and the rounding-error bound."""
    wu = tl.load(weight + u).to(tl.float64)
    prune = prune_term(wu, tl.load(diagonal + u).to(tl.float64), tl.load(corr + u))
    # The least change of each lane over all tiles, and its column; one reduction at the end finds the lowest j.
    changes = tl.full((TILE,), INFINITY, tl.float64)
    best_columns = tl.zeros((TILE,), tl.int32)
    for start in range(0, inputs, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < inputs
        possible = tl.load(restore + columns, mask=inside, other=INFINITY) < INFINITY
        w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float64)
        d = tl.load(diagonal + columns, mask=inside, other=0.0).to(tl.float64)
        c = tl.load(corr + columns, mask=inside, other=0.0)
        g = tl.load(gram + u.to(tl.int64) * inputs + columns, mask=inside, other=0.0).to(tl.float64)
        change = tl.where(possible, restore_term(w, d, c) - 2.0 * wu * (w * g), INFINITY)
        best_columns = tl.where(change < changes, columns, best_columns)
        changes = tl.minimum(change, changes)
    least = tl.min(changes, 0)
    j = tl.min(tl.where(changes == least, best_columns, inputs), 0)
    wj, dj = tl.load(weight + j).to(tl.float64), tl.load(diagonal + j).to(tl.float64)
    terms = tl.abs(prune) + tl.abs(restore_term(wj, dj, tl.load(corr + j))) + tl.abs(least)
    return prune + least, j, terms * _ROUNDING


@triton.jit
def swap(u, j, weight, gram, diagonal, corr, restore, inputs: tl.constexpr, TILE: tl.constexpr):
    """Prune u, restore j: c += w_u G[:, u] - w_j G[:, j], and b with it; return the new loss."""
    wu, wj = tl.load(weight + u).to(tl.float64), tl.load(weight + j).to(tl.float64)
    losses = tl.zeros((TILE,), tl.float64)
    for start in range(0, inputs, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < inputs
        w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float64)
        d = tl.load(diagonal + columns, mask=inside, other=0.0).to(tl.float64)
        gu = tl.load(gram + u.to(tl.int64) * inputs + columns, mask=inside, other=0.0).to(tl.float64)
        gj = tl.load(gram + j.to(tl.int64) * inputs + columns, mask=inside, other=0.0).to(tl.float64)
        c = tl.load(corr + columns, mask=inside, other=0.0) + (wu * gu - wj * gj)
        pruned = tl.load(restore + columns, mask=inside, other=INFINITY) < INFINITY
        pruned = (pruned | (columns == u)) & (columns != j)
        losses += tl.where(pruned, w * c, 0.0)
        tl.debug_barrier()  # other threads may still load what this one stores
        tl.store(corr + columns, c, mask=inside)
        tl.store(restore + columns, tl.where(pruned, restore_term(w, d, c), INFINITY).to(tl.float32), mask=inside)
    tl.debug_barrier()
    return tl.maximum(tl.sum(losses, 0), 0.0)


@triton.jit
def restore_term(w, d, c):
    """Compute b_j, the change of the loss when a weight w alone is restored; d is G_jj and c is c_j."""
    return w * (w * d - 2.0 * c)
