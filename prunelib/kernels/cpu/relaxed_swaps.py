"""Relaxed swaps, compiled: pairs are chosen in float32 with SIMD, and made in float64.

A row's result depends neither on its chunk nor on the number of threads.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from prunelib.kernels.cpu.compiled import BLOCKED, compiled, correlate, first_of, in_chunks, lesser
from prunelib.kernels.reference.relaxed_swaps import FLAT, NEAR, OUTSIDE, PAIRS

_FLAT, _NEAR = np.float32(FLAT), np.float32(NEAR)
_FEW = 32  # as few are sorted faster than parted


def descend(
    weight: torch.Tensor,
    gram: torch.Tensor,
    shifts: torch.Tensor,
    mass: torch.Tensor,
    fixed: torch.Tensor,
    group: int,
    price: float | None,
    tolerance: float,
    rounds: int,
    threads: int,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Make relaxed swaps on one objective after the other; see :mod:`prunelib.kernels.reference.relaxed_swaps`."""
    weights, grams = weight.contiguous().numpy(), gram.contiguous().numpy()
    objectives, locked = shifts.contiguous().numpy(), fixed.numpy()
    trade = (-1.0, 0.0) if price is None else (price, OUTSIDE)

    def work(rows: slice) -> tuple[slice, torch.Tensor]:
        masses = mass[rows].clone(memory_format=torch.contiguous_format)
        row = _empty(grams, len(grams), len(grams) // group)
        _descend(row, weights[rows], objectives, masses.numpy(), locked[rows], group, *trade, tolerance, rounds)
        return rows, masses

    return in_chunks(work, len(mass), threads)


class _Row(NamedTuple):
    """One row and its state; the outside is its last place, of weight 0.

    gram (inputs, inputs) is float32; weight, mass, room, corr = G p, and moved = d w^2 are (inputs + 1,) float64.
    weight32, gradient, energy (the curvature along one mass), closed (BLOCKED for what has nothing to give), open (what
    it may take) and drops are (inputs + 1,) float32, for choosing pairs. fixed (inputs + 1,) is bool; givers and takers
    (groups,) hold the pair of each group, and promised its drop.
    """

    gram: np.ndarray
    weight: np.ndarray
    mass: np.ndarray
    room: np.ndarray
    corr: np.ndarray
    moved: np.ndarray
    weight32: np.ndarray
    gradient: np.ndarray
    energy: np.ndarray
    closed: np.ndarray
    open: np.ndarray
    drops: np.ndarray
    fixed: np.ndarray
    givers: np.ndarray
    takers: np.ndarray
    promised: np.ndarray


def _empty(gram, inputs, groups):
    """Room for the state of one row."""
    exact, fast = np.zeros((5, inputs + 1), np.float64), np.zeros((6, inputs + 1), np.float32)
    pairs, promised = np.zeros((2, groups), np.int64), np.zeros(groups, np.float32)
    return _Row(gram, *exact, *fast, np.zeros(inputs + 1, np.bool_), *pairs, promised)


@compiled
def _descend(row, weights, shifts, masses, fixed, group, price, outside, tolerance, rounds):
    inputs = weights.shape[1]
    pairs = max(1, inputs // PAIRS)
    for r in range(len(weights)):
        _begin(row, weights[r], masses[r], fixed[r], price, outside)
        for shift in shifts:
            _set_objective(row, shift)
            for _ in range(rounds):
                loss, gap = _certify(row, group, price)
                if gap <= tolerance * loss or not _round(row, group, pairs):
                    break
        masses[r] = np.minimum(row.mass[:inputs], 1.0)


@compiled
def _begin(row, w, m, fixed, price, outside):
    """Set the masses and c = G p; the outside holds ``outside`` and has as much room."""
    inputs = w.size
    row.weight[:inputs], row.weight32[:inputs], row.mass[:inputs], row.fixed[:inputs] = w, w, m, fixed
    row.room[:inputs] = 1.0 - m
    row.mass[inputs], row.room[inputs] = outside, outside
    row.gradient[inputs] = -price
    pruned = (1.0 - m) * w
    correlate(pruned, np.flatnonzero(pruned), row.gram, row.corr[:inputs])
    for j in range(inputs + 1):
        _open(row, j)


@compiled
def _open(row, j):
    """Say what place j may give and take."""
    row.closed[j] = BLOCKED if row.fixed[j] or row.mass[j] <= 0 else 0.0
    row.open[j] = 0.0 if row.fixed[j] else row.room[j]


@compiled
def _set_objective(row, shift):
    """Set d w^2, the curvatures and the gradient of all inputs."""
    for j in range(shift.size):
        square = row.weight[j] * row.weight[j]
        row.moved[j] = shift[j] * square
        row.energy[j] = square * row.gram[j, j] - row.moved[j]
        row.gradient[j] = _slope(row, j)


@compiled
def _slope(row, j):
    """df/dm_j = d w^2 (1 - 2 m) - 2 w c in float64; for the outside what mass earns there."""
    if j == row.weight.size - 1:
        return np.float64(row.gradient[j])
    return row.moved[j] * (1.0 - 2.0 * row.mass[j]) - 2.0 * row.weight[j] * row.corr[j]


@compiled
def _certify(row, group, price):
    """The relaxed loss, and the dual gap: largest <gradient, m - v> over the polytope, or with a price over the box."""
    inputs = row.weight.size - 1
    loss, gap = 0.0, 0.0
    gradient = np.empty(group)
    for low in range(0, inputs, group):
        free, budget = 0, 0.0
        for j in range(low, low + group):
            loss += (1.0 - row.mass[j]) * (row.weight[j] * row.corr[j] + row.moved[j] * row.mass[j])
            if not row.fixed[j]:
                gradient[free] = _slope(row, j) + max(price, 0.0)
                gap += gradient[free] * row.mass[j]
                budget += row.mass[j]
                free += 1
        gap -= _least(gradient[:free], budget) if price < 0 else np.minimum(gradient[:free], 0.0).sum()
    return loss, gap


@compiled
def _least(gradient, budget):
    """The least <gradient, v> over v in [0, 1] that sum to ``budget``; reorders the gradient."""
    whole = min(int(budget), gradient.size)
    if whole == gradient.size:
        return gradient.sum()
    if gradient.size <= _FEW:
        gradient.sort()
        ranked = gradient
    else:
        ranked = np.partition(gradient, whole)
    return ranked[:whole].sum() + (budget - whole) * ranked[whole]


@compiled
def _round(row, group, pairs):
    """Scan, and make the pairs that promise most, until so many are found; whether there were any."""
    found = 0
    while found < pairs:
        largest = _scan(row, group)
        if largest <= 0:
            break
        for q in range(row.promised.size):
            if row.promised[q] >= _NEAR * largest:
                _swap(row, row.givers[q], row.takers[q])
                found += 1
    return found > 0


@compiled
def _scan(row, group):
    """Find the pair of each group and the drop it promises; return the largest drop."""
    outside = row.weight.size - 1
    largest = np.float32(0.0)
    for q in range(row.promised.size):
        places = slice(q * group, (q + 1) * group)
        i = _giver(row.gradient[places], row.closed[places]) + places.start
        if row.closed[outside] == 0 and (row.closed[i] > 0 or row.gradient[outside] > row.gradient[i]):
            i = outside
        row.givers[q], row.promised[q] = i, 0.0
        if row.closed[i] == 0:
            j, row.promised[q] = _taker(row, i, places)
            row.takers[q] = j + places.start
            earned = _earned(row, i)
            if earned > row.promised[q]:
                row.takers[q], row.promised[q] = outside, earned
        largest = max(largest, row.promised[q])
    return largest


@compiled
def _giver(gradient, closed):
    """The place with the largest gradient of those that have something to give."""
    least = np.float32(BLOCKED)
    for j in range(gradient.size):
        least = lesser(closed[j] - gradient[j], least)
    i = 0
    while closed[i] - gradient[i] != least and i < gradient.size - 1:
        i += 1
    return i


@compiled
def _taker(row, i, places):
    """Which of these places promises the largest drop when i gives, counted from the first; and the drop."""
    interaction = row.gram[min(i, row.gram.shape[0] - 1), places]
    w, gradient, energy, free, drops = (
        row.weight32[places],
        row.gradient[places],
        row.energy[places],
        row.open[places],
        row.drops[places],
    )
    top, twice, own, mass = row.gradient[i], np.float32(2.0) * row.weight32[i], row.energy[i], np.float32(row.mass[i])
    least = np.float32(0.0)
    for j in range(w.size):
        slope = -lesser(gradient[j] - top, np.float32(0.0))
        curvature = own + energy[j] - twice * w[j] * interaction[j]
        step = lesser(lesser(free[j], mass), slope / (np.float32(-2.0) * lesser(-curvature, -_FLAT)))
        drops[j] = step * (curvature * step - slope)
        least = lesser(drops[j], least)
    return first_of(drops, least), -least


@compiled
def _earned(row, i):
    """The drop when i gives to the outside."""
    outside = row.weight.size - 1
    slope, curvature = row.gradient[i] - row.gradient[outside], row.energy[i]
    step = slope / (np.float32(-2.0) * lesser(-curvature, -_FLAT))
    step = lesser(lesser(row.open[outside], np.float32(row.mass[i])), step)
    return step * (slope - curvature * step) if slope > 0 else np.float32(0.0)


@compiled
def _swap(row, i, j):
    """Move mass from i to j as far as the exact line search and their bounds allow: c += s w_i G_i - s w_j G_j."""
    slope = _slope(row, i) - _slope(row, j)
    if slope <= 0:
        return
    last = row.gram.shape[0] - 1
    wi, wj, gi, gj = row.weight[i], row.weight[j], row.gram[min(i, last)], row.gram[min(j, last)]
    curvature = wi * wi * gi[min(i, last)] - row.moved[i] + wj * wj * gj[min(j, last)] - row.moved[j]
    curvature -= 2.0 * wi * wj * gi[min(j, last)]
    step = min(row.mass[i], row.room[j])
    if 2.0 * curvature * step > slope:
        step = slope / (2.0 * curvature)
    row.mass[i] -= step
    row.room[i] += step
    row.mass[j] += step
    row.room[j] -= step
    _open(row, i)
    _open(row, j)
    _update(row, step * wi, gi, step * wj, gj)


@compiled
def _update(row, give, gi, take, gj):
    """Add to c what is now pruned of one weight, less what is restored of another, and set the gradient."""
    weight, mass, corr, moved, gradient = row.weight, row.mass, row.corr, row.moved, row.gradient
    for k in range(gi.size):
        corr[k] += give * gi[k] - take * gj[k]
        gradient[k] = moved[k] * (1.0 - 2.0 * mass[k]) - 2.0 * weight[k] * corr[k]
