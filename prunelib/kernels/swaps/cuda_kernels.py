"""What the kernels of swaps share: the state of a row, decisions in float64, and the swap itself.

State of a row: corr is c = G p in float64; restore is b_j in float32, infinite where kept; (inputs,) each.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import FLOAT32_ROUNDING, INFINITY, prune_term
from prunelib.kernels.interface import LOSS_TOLERANCE, ROUNDING

TOLERANCE = tl.constexpr(LOSS_TOLERANCE)
_ROUNDING = tl.constexpr(ROUNDING)


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
    best, best_u, best_j = current * -TOLERANCE, -1, -1
    u = tl.min(tl.where(candidate, columns, BLOCK), 0)
    while u < BLOCK:
        change, j, rounding = best_partner(u, weight, gram, diagonal, corr, restore, inputs, TILE)
        better = (change < best) & (change < -(current * TOLERANCE + rounding))
        best = tl.where(better, change, best)
        best_u, best_j = tl.where(better, u, best_u), tl.where(better, j, best_j)
        u = tl.min(tl.where(candidate & (columns > u), columns, BLOCK), 0)
    return best_u, best_j


@triton.jit
def best_partner(u, weight, gram, diagonal, corr, restore, inputs: tl.constexpr, TILE: tl.constexpr):
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
    _, _, rounding = change_of(u, j, weight, gram, diagonal, corr, inputs)
    return prune + least, j, rounding


@triton.jit
def change_of(u, j, weight, gram, diagonal, corr, inputs: tl.constexpr):
    """Compute in float64 a_u, b_j - 2 w_u w_j G_uj, and a bound of their rounding error; their sum is dL(u, j)."""
    wu, wj = tl.load(weight + u).to(tl.float64), tl.load(weight + j).to(tl.float64)
    prune = prune_term(wu, tl.load(diagonal + u).to(tl.float64), tl.load(corr + u))
    restored = restore_term(wj, tl.load(diagonal + j).to(tl.float64), tl.load(corr + j))
    least = restored - 2.0 * wu * (wj * tl.load(gram + u.to(tl.int64) * inputs + j).to(tl.float64))
    return prune, least, (tl.abs(prune) + tl.abs(restored) + tl.abs(least)) * _ROUNDING


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
