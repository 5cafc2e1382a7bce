"""Frank-Wolfe steps, one program a row; the row stays in registers from the gradient to the vertex."""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import HIGHEST, ordered, thresholds


@triton.jit
def direct_rows(
    weight, linear, residual, mass, fixed, toward, pruned, slope, keep,
    inputs: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Set the direction of a row that is one group."""
    row = tl.program_id(0).to(tl.int64) * inputs
    columns = tl.arange(0, BLOCK)
    inside = columns < inputs
    w, m, g = _gradient(weight + row, linear + row, residual + row, mass + row, columns, inside)
    kept = inside & (tl.load(fixed + row + columns, mask=inside, other=0) != 0)
    keys = tl.where(inside & ~kept, ordered(g), HIGHEST)
    free = keep - tl.sum(kept.to(tl.int32), 0)  # fixed entries are kept first
    threshold = tl.sum(thresholds(keys[None, :], tl.zeros((1,), tl.int32) + free), 0)
    below, equal = keys < threshold, keys == threshold
    # Of keys equal to the threshold, the first are taken until the budget is used.
    left = free - tl.sum(below.to(tl.int32), 0)
    taken = below | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= left))
    _turn(w, m, g, kept, taken, toward + row, pruned + row, slope, columns, inside)


@triton.jit
def direct_groups(
    weight, linear, residual, mass, fixed, toward, pruned, slope, keep,
    inputs: tl.constexpr, group: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Set the direction of a row of small groups: each entry is ranked among those of its group."""
    row = tl.program_id(0).to(tl.int64) * inputs
    columns = tl.arange(0, BLOCK)
    inside = columns < inputs
    weight, linear, residual, mass, fixed = weight + row, linear + row, residual + row, mass + row, fixed + row
    w, m, g = _gradient(weight, linear, residual, mass, columns, inside)
    kept = tl.load(fixed + columns, mask=inside, other=0) != 0
    before, free = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.int32) + keep
    # Ranks by comparing all pairs of a group: position by position, each entry against one other of its group.
    for position in range(group):
        other = columns - columns % group + position  # (BLOCK,)
        _, _, h = _gradient(weight, linear, residual, mass, other, inside)
        locked = tl.load(fixed + other, mask=inside, other=0) != 0
        free -= locked.to(tl.int32)
        before += (~locked & ((h < g) | ((h == g) & (other < columns)))).to(tl.int32)
    _turn(w, m, g, kept, before < free, toward + row, pruned + row, slope, columns, inside)


@triton.jit
def _turn(w, m, g, kept, taken, toward, pruned, slope, columns, inside):
    """Set the direction from m to the vertex, that times w, and the slope along it."""
    d = tl.where(kept | (taken & (g < 0.0)), 1.0, 0.0) - m
    tl.store(toward + columns, d, mask=inside)
    tl.store(pruned + columns, d * w, mask=inside)
    tl.store(slope + tl.program_id(0), -tl.sum(tl.where(inside, g * d, 0.0).to(tl.float64), 0))


@triton.jit
def bend(weight, linear, toward, change, found, inputs: tl.constexpr, BLOCK: tl.constexpr):
    """Set <D, w * change - linear * D> of a row."""
    row = tl.program_id(0).to(tl.int64) * inputs
    columns = tl.arange(0, BLOCK)
    inside = columns < inputs
    d = tl.load(toward + row + columns, mask=inside, other=0.0)
    w = tl.load(weight + row + columns, mask=inside, other=0.0)
    bent = w * tl.load(change + row + columns, mask=inside, other=0.0)
    bent -= tl.load(linear + row + columns, mask=inside, other=0.0) * d
    tl.store(found + tl.program_id(0), tl.sum((d * bent).to(tl.float64), 0))


@triton.jit
def _gradient(weight, linear, residual, mass, columns, inside):
    """Load weights and masses at some columns of a row, and compute the gradient there; (BLOCK,) each."""
    w = tl.load(weight + columns, mask=inside, other=0.0)
    m = tl.load(mass + columns, mask=inside, other=0.0)
    r = tl.load(residual + columns, mask=inside, other=0.0)
    g = tl.load(linear + columns, mask=inside, other=0.0) * (1.0 - 2.0 * m) - 2.0 * w * r
    return w, m, g
