"""Relaxed swaps, one program a row from its first scan to its last objective.

A scan has the row in registers as (groups, columns of a group) and finds the pair of each group in float32; the steps
of pairs are made in float64. Column ``inputs`` is the outside, of weight 0.

State of a row: corr is c = G p in float64, mass is m in float64; gradient is df/dm in float32, for scans; (inputs,)
each.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import HIGHEST, INFINITY, ordered, thresholds
from prunelib.kernels.relaxed_swaps.reference import FLAT, NEAR, OUTSIDE

_FLAT = tl.constexpr(FLAT)
_NEAR = tl.constexpr(NEAR)
_OUTSIDE = tl.constexpr(OUTSIDE)


@triton.jit(do_not_specialize=["stages", "rounds"])
def descend(
    weight, gram, diagonal, shifts, fixed, mass, corr, gradient, stages, price, tolerance, rounds,
    pairs: tl.constexpr, inputs: tl.constexpr, group: tl.constexpr, PRICED: tl.constexpr,
    GROUPS: tl.constexpr, COLUMNS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Make the relaxed swaps of a row on one objective after the other."""
    row = tl.program_id(0).to(tl.int64) * inputs
    weight, fixed, mass, corr, gradient = weight + row, fixed + row, mass + row, corr + row, gradient + row
    outside = tl.full((), inputs, tl.int32)
    stage = 0
    while stage < stages:
        shift = shifts + stage * inputs
        # Moves no mass: sets the gradient of this objective.
        _update(outside, outside, 0.0, weight, gram, shift, mass, corr, gradient, inputs, TILE)
        made, left = 1, rounds
        while (made > 0) & (left > 0):
            made, left = 0, left - 1
            loss = _loss(weight, shift, mass, corr, inputs, TILE)
            gap = _gap(fixed, mass, gradient, price, inputs, group, PRICED, GROUPS, COLUMNS)
            if gap > tolerance * loss:
                made = _make_round(
                    weight, gram, diagonal, shift, fixed, mass, corr, gradient, price,
                    pairs, inputs, group, PRICED, GROUPS, COLUMNS, TILE,
                )  # fmt: skip
        stage += 1


@triton.jit
def _make_round(
    weight, gram, diagonal, shift, fixed, mass, corr, gradient, price,
    pairs: tl.constexpr, inputs: tl.constexpr, group: tl.constexpr, PRICED: tl.constexpr,
    GROUPS: tl.constexpr, COLUMNS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Scan and make the pairs with the largest drops, until ``pairs`` are found; return their number."""
    groups = tl.arange(0, GROUPS)
    found, largest = 0, 1.0
    while (found < pairs) & (largest > 0.0):
        best, givers, takers = _scan(
            weight, gram, diagonal, shift, fixed, mass, gradient, price, inputs, group, PRICED, GROUPS, COLUMNS
        )
        tl.debug_barrier()  # the state may change only when all threads have read it
        largest = tl.max(best, 0)
        near = (best > 0.0) & (best >= largest * _NEAR)
        # One pair after the other, in the order of the groups: each changes the c of the next.
        q = tl.min(tl.where(near, groups, GROUPS), 0)
        while q < GROUPS:
            i = tl.sum(tl.where(groups == q, givers, 0), 0)
            j = tl.sum(tl.where(groups == q, takers, 0), 0)
            _swap(i, j, weight, gram, diagonal, shift, mass, corr, gradient, price, inputs, TILE)
            found += 1
            q = tl.min(tl.where(near & (groups > q), groups, GROUPS), 0)
    return found


@triton.jit
def _scan(
    weight, gram, diagonal, shift, fixed, mass, gradient, price,
    inputs: tl.constexpr, group: tl.constexpr, PRICED: tl.constexpr, GROUPS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Find the best pair of each group: its drop, its giver and its taker, (GROUPS,) each."""
    columns, inside = _columns(inputs, group, GROUPS, COLUMNS)  # (GROUPS, COLUMNS)
    w = tl.load(weight + columns, mask=inside, other=0.0)
    g = tl.load(gradient + columns, mask=inside, other=0.0)
    m = tl.load(mass + columns, mask=inside, other=0.0)
    movable = inside & (tl.load(fixed + columns, mask=inside, other=1) == 0)
    energy = _energy(w, diagonal, shift, columns, inside)
    top, at = tl.max(tl.where(movable & (m > 0.0), g, -INFINITY), 1, return_indices=True)
    givers = tl.arange(0, GROUPS) * group + at
    gives = top > -INFINITY
    if PRICED:
        sells = -price > top
        givers, top, gives = tl.where(sells, inputs, givers), tl.where(sells, -price, top), gives | sells
    real = gives & (givers < inputs)
    wi = tl.load(weight + givers, mask=real, other=0.0)  # (GROUPS,)
    mi = tl.load(mass + givers, mask=real, other=_OUTSIDE).to(tl.float32)
    own = _energy(wi, diagonal, shift, givers, real)
    there = givers.to(tl.int64)[:, None] * inputs + columns
    interaction = tl.load(gram + there, mask=inside & real[:, None], other=0.0)  # (GROUPS, COLUMNS)
    slope = tl.maximum(top[:, None] - g, 0.0)
    curvature = own[:, None] + energy - 2.0 * wi[:, None] * w * interaction
    slack = tl.where(movable, 1.0 - m, 0.0).to(tl.float32)
    drops = _drop(slope, curvature, tl.minimum(slack, mi[:, None]))
    best, at = tl.max(tl.where(movable & gives[:, None], drops, 0.0), 1, return_indices=True)
    takers = tl.arange(0, GROUPS) * group + at
    if PRICED:
        earned = tl.where(real, _drop(tl.maximum(top + price, 0.0), own, mi), 0.0)
        takers, best = tl.where(earned > best, inputs, takers), tl.maximum(earned, best)
    return best, givers, takers


@triton.jit
def _columns(inputs: tl.constexpr, group: tl.constexpr, GROUPS: tl.constexpr, COLUMNS: tl.constexpr):
    """Compute the columns of all groups, (GROUPS, COLUMNS), and which of them exist."""
    groups, positions = tl.arange(0, GROUPS)[:, None], tl.arange(0, COLUMNS)[None, :]
    return groups * group + positions, (positions < group) & (groups < inputs // group)


@triton.jit
def _energy(w, diagonal, shift, columns, inside):
    """Compute the curvature along one mass, w^2 (G_jj - d_j)."""
    d = tl.load(diagonal + columns, mask=inside, other=0.0).to(tl.float64)
    return (w * w) * (d - tl.load(shift + columns, mask=inside, other=0.0)).to(tl.float32)


@triton.jit
def _drop(slope, curvature, most):
    """Compute the drop of f along an edge, at the best step of at most ``most``."""
    step = tl.minimum(most, slope / (2.0 * tl.maximum(curvature, _FLAT)))
    return step * (slope - curvature * step)


@triton.jit
def _swap(i, j, weight, gram, diagonal, shift, mass, corr, gradient, price, inputs: tl.constexpr, TILE: tl.constexpr):
    """Move mass from i to j, by the exact line search within their bounds."""
    wi, mi, own_i, slope_i = _column(i, weight, diagonal, shift, mass, corr, price, inputs)
    wj, mj, own_j, slope_j = _column(j, weight, diagonal, shift, mass, corr, price, inputs)
    both = (i < inputs) & (j < inputs)
    interaction = tl.load(gram + i.to(tl.int64) * inputs + j, mask=both, other=0.0).to(tl.float64)
    curvature = own_i + own_j - 2.0 * wi * wj * interaction
    slope = slope_i - slope_j
    slack = tl.where(j < inputs, 1.0 - mj, _OUTSIDE)
    step = tl.minimum(mi, slack)
    step = tl.where(2.0 * curvature * step > slope, slope / (2.0 * curvature), step)
    tl.debug_barrier()
    if slope > 0.0:
        tl.store(mass + i, mi - step, mask=i < inputs)
        tl.store(mass + j, tl.where(step >= slack, 1.0, mj + step), mask=j < inputs)
        tl.debug_barrier()
        _update(i, j, step, weight, gram, shift, mass, corr, gradient, inputs, TILE)


@triton.jit
def _column(k, weight, diagonal, shift, mass, corr, price, inputs: tl.constexpr):
    """Load the weight and the mass of column k, and compute its curvature and slope, in float64."""
    inside = k < inputs
    w = tl.load(weight + k, mask=inside, other=0.0).to(tl.float64)
    m = tl.load(mass + k, mask=inside, other=_OUTSIDE)
    d = tl.load(shift + k, mask=inside, other=0.0)
    own = w * w * (tl.load(diagonal + k, mask=inside, other=0.0).to(tl.float64) - d)
    slope = d * w * w * (1.0 - 2.0 * m) - 2.0 * w * tl.load(corr + k, mask=inside, other=0.0)
    return w, m, own, tl.where(inside, slope, -price)


@triton.jit
def _update(i, j, step, weight, gram, shift, mass, corr, gradient, inputs: tl.constexpr, TILE: tl.constexpr):
    """Add step (w_i G_i - w_j G_j) to c, and set the gradient."""
    give = step * tl.load(weight + i, mask=i < inputs, other=0.0).to(tl.float64)
    take = step * tl.load(weight + j, mask=j < inputs, other=0.0).to(tl.float64)
    from_i, from_j = gram + i.to(tl.int64) * inputs, gram + j.to(tl.int64) * inputs
    for start in range(0, inputs, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < inputs
        gi = tl.load(from_i + columns, mask=inside & (i < inputs), other=0.0).to(tl.float64)
        gj = tl.load(from_j + columns, mask=inside & (j < inputs), other=0.0).to(tl.float64)
        c = tl.load(corr + columns, mask=inside, other=0.0) + (give * gi - take * gj)
        w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float64)
        m = tl.load(mass + columns, mask=inside, other=0.0)
        slope = tl.load(shift + columns, mask=inside, other=0.0) * w * w * (1.0 - 2.0 * m) - 2.0 * w * c
        tl.store(corr + columns, c, mask=inside)
        tl.store(gradient + columns, slope.to(tl.float32), mask=inside)
    tl.debug_barrier()


@triton.jit
def _loss(weight, shift, mass, corr, inputs: tl.constexpr, TILE: tl.constexpr):
    """Compute the relaxed loss, sum over columns of (1 - m) (w c + d w^2 m)."""
    losses = tl.zeros((TILE,), tl.float64)
    for start in range(0, inputs, TILE):
        columns = start + tl.arange(0, TILE)
        inside = columns < inputs
        w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float64)
        m = tl.load(mass + columns, mask=inside, other=0.0)
        c = tl.load(corr + columns, mask=inside, other=0.0)
        losses += (1.0 - m) * w * (c + tl.load(shift + columns, mask=inside, other=0.0) * w * m)
    return tl.sum(losses, 0)


@triton.jit
def _gap(
    fixed, mass, gradient, price,
    inputs: tl.constexpr, group: tl.constexpr, PRICED: tl.constexpr, GROUPS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Compute the dual gap, the largest <gradient, m - v> over the polytope, or with a price over the box."""
    columns, inside = _columns(inputs, group, GROUPS, COLUMNS)  # (GROUPS, COLUMNS)
    movable = inside & (tl.load(fixed + columns, mask=inside, other=1) == 0)
    g = tl.load(gradient + columns, mask=movable, other=0.0)
    m = tl.load(mass + columns, mask=movable, other=0.0)
    if PRICED:
        worth = tl.where(movable, g + price, 0.0)
        gap = tl.sum(tl.sum(worth * m - tl.minimum(worth, 0.0), 1), 0)
    else:
        held, budget = tl.sum(g * m, 1), tl.sum(m, 1)
        # The least <gradient, v> is the sum of the ``budget`` lowest gradients, found by a threshold without a sort.
        keys = tl.where(movable, ordered(g), HIGHEST)
        threshold = thresholds(keys, budget)
        below = keys < threshold[:, None]
        taken = tl.sum(below.to(tl.float64), 1)
        at = tl.min(tl.where(movable & (keys == threshold[:, None]), g, INFINITY), 1)
        rest = (budget - taken) * tl.where(at < INFINITY, at, 0.0)
        gap = tl.sum(held - tl.sum(tl.where(below, g, 0.0).to(tl.float64), 1) - rest, 0)
    return gap
