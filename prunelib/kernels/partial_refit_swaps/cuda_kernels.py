"""Partial refit swaps: scans in float32, decisions and descents in float64.

State of a row: x is its weights, 0 where pruned; corr is c = G (w - x); closed is infinite where kept, else 0. For a
scan, target is c_j G_jj^-1/2 and least[u] becomes min_j -(c_j + x_u G_uj)^2 / G_jj over the pruned j, the least change
from pruning u less the cost of pruning it alone; both are float32. scale is G_jj^-1/2 in float32, inverse is 1 / G_jj
in float64. ``rows`` lists the indices of the rows to work on: corr, target and least have one row for each of these,
all other arrays one for each row of the chunk.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import FLOAT32_ROUNDING, INFINITY, prune_term
from prunelib.kernels.refit_swaps.reference import IMPROVEMENT

_IMPROVEMENT = tl.constexpr(IMPROVEMENT)


@triton.jit(do_not_specialize=["count"])
def scan_rows(
    rows, x, gram, scale, closed, target, least, count,
    inputs: tl.constexpr, ROWS: tl.constexpr, KEPT: tl.constexpr, PRUNED: tl.constexpr,
):  # fmt: skip
    """Set least of ROWS rows and KEPT columns u, over all j, PRUNED at a time. G is read as G[j, u].

    A pair takes two fused multiply-adds and a minimum; closed excludes the kept j. A tile of G in registers is used for
    a block of rows. The last row is repeated to fill the last block.
    """
    n = tl.minimum(tl.program_id(0) * ROWS + tl.arange(0, ROWS), count - 1).to(tl.int64)
    r = tl.load(rows + n)
    u = tl.program_id(1) * KEPT + tl.arange(0, KEPT)
    inside = (u < inputs)[None, :]
    xs = tl.load(x + (r * inputs)[:, None] + u[None, :], mask=inside, other=0.0).to(tl.float32)
    found = tl.full((ROWS, KEPT), INFINITY, tl.float32)
    for start in tl.range(0, inputs, PRUNED, num_stages=2):
        j = start + tl.arange(0, PRUNED)
        within = (j < inputs)[:, None]
        g = tl.load(gram + j.to(tl.int64)[:, None] * inputs + u[None, :], mask=within & inside, other=0.0)
        g *= tl.load(scale + j, mask=j < inputs, other=0.0)[:, None]
        c = tl.load(target + (n * inputs)[None, :] + j[:, None], mask=within, other=0.0)
        shut = tl.load(closed + (r * inputs)[None, :] + j[:, None], mask=within, other=INFINITY)  # (PRUNED, ROWS)
        restored = c[:, :, None] + xs[None, :, :] * g[:, None, :]  # (PRUNED, ROWS, KEPT)
        found = tl.minimum(found, tl.min(shut[:, :, None] - restored * restored, axis=0))
    tl.store(least + (n * inputs)[:, None] + u[None, :], found, mask=inside)


@triton.jit
def scan_groups(
    rows, x, gram, scale, closed, target, least, inputs: tl.constexpr, group: tl.constexpr, KEPT: tl.constexpr
):
    """Set least of one row and KEPT columns u, over the j of the same group of columns."""
    n = tl.program_id(0).to(tl.int64)
    r = tl.load(rows + n)
    u = tl.program_id(1) * KEPT + tl.arange(0, KEPT)
    inside = u < inputs
    xs = tl.load(x + r * inputs + u, mask=inside, other=0.0).to(tl.float32)
    found = tl.full((KEPT,), INFINITY, tl.float32)
    for position in range(group):
        j = u - u % group + position
        g = tl.load(gram + u.to(tl.int64) * inputs + j, mask=inside, other=0.0)
        s = tl.load(scale + j, mask=inside, other=0.0)
        c = tl.load(target + n * inputs + j, mask=inside, other=0.0)
        shut = tl.load(closed + r * inputs + j, mask=inside, other=INFINITY)
        restored = c + xs * (g * s)
        found = tl.minimum(found, shut - restored * restored)
    tl.store(least + n * inputs + u, found, mask=inside)


@triton.jit
def visit(
    rows, corr, least, weight, gram, inverse, x, closed, swaps, sweeps, loss_before, loss_after, optimal,
    inputs: tl.constexpr, group: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Visit the u of a row that may improve, the best first, and make the best swap of each that does.

    A row in which no swap is made is optimal, and its loss at the start of this sweep is final.
    """
    n = tl.program_id(0).to(tl.int64)
    r = tl.load(rows + n)
    weight, x, closed, corr = weight + r * inputs, x + r * inputs, closed + r * inputs, corr + n * inputs
    columns = tl.arange(0, BLOCK)
    loss, threshold, gain, reach = _gains(weight, gram, x, closed, corr, least + n * inputs, columns, inputs)
    made = 0
    lowest, u = tl.min(gain, 0, return_indices=True)
    while lowest < reach - threshold:
        gain = tl.where(columns == u, INFINITY, gain)
        change, j = _best_swap(u, gram, inverse, x, closed, corr, inputs, group, TILE)
        if change < -threshold:
            _swap(u, j, gram, inverse, x, closed, corr, inputs, TILE)
            made += 1
        lowest, u = tl.min(gain, 0, return_indices=True)
    sweep = tl.load(sweeps + r)
    if sweep == 0:
        tl.store(loss_before + r, loss)
    tl.store(loss_after + r, loss)
    tl.store(sweeps + r, sweep + 1)
    tl.store(swaps + r, tl.load(swaps + r) + made)
    tl.store(optimal + r, made == 0)


@triton.jit
def _gains(weight, gram, x, closed, corr, least, columns, inputs: tl.constexpr):
    """Compute the row's loss, the threshold of an improvement, the least change of each u and its rounding bound."""
    inside = columns < inputs
    w = tl.load(weight + columns, mask=inside, other=0.0)
    xs = tl.load(x + columns, mask=inside, other=0.0)
    c = tl.load(corr + columns, mask=inside, other=0.0)
    d = tl.load(gram + columns.to(tl.int64) * (inputs + 1), mask=inside, other=0.0)
    kept = tl.load(closed + columns, mask=inside, other=0.0) == INFINITY
    found = tl.load(least + columns, mask=inside, other=INFINITY)
    gain = tl.where(kept, prune_term(xs, d, c).to(tl.float32) + found, INFINITY)
    size = tl.max(tl.abs(c).to(tl.float32), 0) + 2.0 * tl.max(tl.abs(xs).to(tl.float32), 0)
    loss = tl.maximum(tl.sum((w - xs) * c, 0), 0.0)
    return loss, tl.sum(w * w, 0) * _IMPROVEMENT, gain, size * FLOAT32_ROUNDING * size


@triton.jit
def _best_swap(u, gram, inverse, x, closed, corr, inputs: tl.constexpr, group: tl.constexpr, TILE: tl.constexpr):
    """Find in float64 the least change from pruning u, and its j, the lowest of equals."""
    low = 0 if group == inputs else u - u % group  # for a whole row a constant, which keeps loads wide
    row, xu = gram + u.to(tl.int64) * inputs, tl.load(x + u)
    changes, columns = tl.full((TILE,), INFINITY, tl.float64), tl.zeros((TILE,), tl.int32)
    for start in range(0, group, TILE):
        position = start + tl.arange(0, TILE)
        near, j = position < group, low + position
        restored = tl.load(corr + j, mask=near, other=0.0) + xu * tl.load(row + j, mask=near, other=0.0)
        shut = tl.load(closed + j, mask=near, other=INFINITY)
        change = shut - restored * restored * tl.load(inverse + j, mask=near, other=0.0)
        columns = tl.where(change < changes, j, columns)
        changes = tl.minimum(change, changes)
    least = tl.min(changes, 0)
    best = tl.min(tl.where(changes == least, columns, inputs), 0)
    return prune_term(xu, tl.load(row + u), tl.load(corr + u)) + least, best


@triton.jit
def _swap(u, j, gram, inverse, x, closed, corr, inputs: tl.constexpr, TILE: tl.constexpr):
    """Prune u and restore j with its best value: c += x_u G[u] - x_j G[j]."""
    row_u, row_j = gram + u.to(tl.int64) * inputs, gram + j.to(tl.int64) * inputs
    xu = tl.load(x + u)
    xj = (tl.load(corr + j) + xu * tl.load(row_u + j)) * tl.load(inverse + j)
    tl.debug_barrier()  # other threads may still load what this one stores
    for start in range(0, inputs, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < inputs
        step = xu * tl.load(row_u + columns, mask=inside, other=0.0)
        step -= xj * tl.load(row_j + columns, mask=inside, other=0.0)
        tl.store(corr + columns, tl.load(corr + columns, mask=inside, other=0.0) + step, mask=inside)
    tl.store(x + u, 0.0)
    tl.store(x + j, xj)
    tl.store(closed + u, 0.0)
    tl.store(closed + j, INFINITY)
    tl.debug_barrier()


@triton.jit(do_not_specialize=["count", "first"])
def descend(
    rows, corr, gram, inverse, x, closed, steps, count, first,
    inputs: tl.constexpr, ROWS: tl.constexpr, COORDINATES: tl.constexpr,
):  # fmt: skip
    """Take the best step of each kept weight of COORDINATES columns in turn, from ``first`` on; store the steps.

    Within the program c is updated at these columns alone. The caller then updates all of c: c - steps G[columns].
    """
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    r = tl.load(rows + n, mask=n < count, other=0)
    positions = tl.arange(0, COORDINATES)
    columns = first + positions
    inside = (n < count)[:, None] & (columns < inputs)[None, :]
    c = tl.load(corr + (n * inputs)[:, None] + columns[None, :], mask=inside, other=0.0)  # (ROWS, COORDINATES)
    here = (r * inputs)[:, None] + columns[None, :]
    kept = tl.load(closed + here, mask=inside, other=0.0) == INFINITY
    moved = tl.zeros((ROWS, COORDINATES), tl.float64)
    for k in range(COORDINATES):
        i = tl.minimum(first + k, inputs - 1)  # beyond the last column nothing is kept
        its_c = tl.gather(tl.where(kept, c, 0.0), tl.full((ROWS, 1), k, tl.int32), 1)
        # (ROWS, 1); 0 for a weight that is not kept
        step = its_c * tl.load(inverse + i)
        moved = tl.where((positions == k)[None, :], step, moved)
        g = tl.load(gram + i.to(tl.int64) * inputs + columns, mask=columns < inputs, other=0.0)
        c -= step * g[None, :]
    tl.store(x + here, tl.load(x + here, mask=inside, other=0.0) + moved, mask=inside)
    tl.store(steps + (n * COORDINATES)[:, None] + positions[None, :], moved, mask=(n < count)[:, None])
