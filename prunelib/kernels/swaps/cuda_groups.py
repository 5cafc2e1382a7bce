"""Best swaps within groups of columns, one program a row and one launch for all swaps, in float64 throughout.

A row has ``group`` pairs for each of its columns, so few that a scan of all of them costs about as much as the swap
after it: either reads the row's state and a few vectors as long as the row.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import INFINITY, prune_term
from prunelib.kernels.interface import LOSS_TOLERANCE, ROUNDING
from prunelib.kernels.swaps.cuda_kernels import restore_term, swap

_TOLERANCE = tl.constexpr(LOSS_TOLERANCE)
_ROUNDING = tl.constexpr(ROUNDING)


@triton.jit(do_not_specialize=["limit"])
def best_swaps_in_groups(
    weight, gram, near, diagonal, corr, restore, loss, swaps, sweeps, optimal,
    inputs: tl.constexpr, group: tl.constexpr, limit, TILE: tl.constexpr,
):  # fmt: skip
    """Make the best swap of a row, at most ``limit`` times; a row without one is optimal.

    near[k, u] is G[u, j] for the k-th column j of u's group, (group, inputs).
    """
    r = tl.program_id(0).to(tl.int64)
    weight, corr, restore = weight + r * inputs, corr + r * inputs, restore + r * inputs
    current = tl.load(loss + r)
    made, scans, goes_on = 0, 0, 1
    while goes_on > 0:
        change, u, j, rounding = _best_pair(weight, near, diagonal, corr, restore, inputs, group, TILE)
        improves = change < -(current * _TOLERANCE + rounding)
        scans += 1
        tl.store(optimal + r, improves == 0)
        goes_on = (improves & (made < limit)).to(tl.int32)
        if goes_on > 0:
            current = swap(u, j, weight, gram, diagonal, corr, restore, inputs, TILE)
            made += 1
    tl.store(loss + r, current)
    tl.store(swaps + r, made)
    tl.store(sweeps + r, scans)


@triton.jit
def _best_pair(weight, near, diagonal, corr, restore, inputs: tl.constexpr, group: tl.constexpr, TILE: tl.constexpr):
    """Find the least change of a swap, infinite where there is none, its u and j, the lowest of equals, and its bound.

    The bound is that of the change's rounding error.
    """
    # The least change of each lane over all tiles, its u and j; one reduction at the end finds the lowest u.
    changes = tl.full((TILE,), INFINITY, tl.float64)
    best_u, best_j = tl.zeros((TILE,), tl.int32), tl.zeros((TILE,), tl.int32)
    for start in range(0, inputs, TILE):
        u = start + tl.arange(0, TILE)
        inside = u < inputs
        kept = inside & (tl.load(restore + u, mask=inside, other=0.0) == INFINITY)
        wu = tl.load(weight + u, mask=inside, other=0.0).to(tl.float64)
        du = tl.load(diagonal + u, mask=inside, other=0.0).to(tl.float64)
        prune = prune_term(wu, du, tl.load(corr + u, mask=inside, other=0.0))
        least, partner = tl.full((TILE,), INFINITY, tl.float64), u
        for position in range(group):
            j = u - u % group + position
            possible = tl.load(restore + j, mask=kept, other=INFINITY) < INFINITY
            w = tl.load(weight + j, mask=possible, other=0.0).to(tl.float64)
            d = tl.load(diagonal + j, mask=possible, other=0.0).to(tl.float64)
            c = tl.load(corr + j, mask=possible, other=0.0)
            g = tl.load(near + position * inputs + u, mask=possible, other=0.0).to(tl.float64)
            change = tl.where(possible, restore_term(w, d, c) - 2.0 * wu * (w * g), INFINITY)
            partner = tl.where(change < least, j, partner)
            least = tl.minimum(change, least)
        change = prune + least
        best_u, best_j = tl.where(change < changes, u, best_u), tl.where(change < changes, partner, best_j)
        changes = tl.minimum(change, changes)
    least = tl.min(changes, 0)
    u = tl.min(tl.where(changes == least, best_u, inputs), 0)
    j = tl.max(tl.where((changes == least) & (best_u == u), best_j, 0), 0)
    wu, du, wj, dj = _float64(weight + u), _float64(diagonal + u), _float64(weight + j), _float64(diagonal + j)
    interaction = 2.0 * wu * (wj * _float64(near + j % group * inputs + u))
    restored = restore_term(wj, dj, tl.load(corr + j))
    terms = tl.abs(prune_term(wu, du, tl.load(corr + u))) + tl.abs(restored) + tl.abs(interaction)
    return least, u, j, terms * _ROUNDING


@triton.jit
def _float64(address):
    return tl.load(address).to(tl.float64)
