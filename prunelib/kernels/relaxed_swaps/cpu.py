"""Relaxed swaps on the CPU, compiled by numba: pairs are chosen in float32 with SIMD, steps are made in float64.

Columns are reordered: the first columns of all groups, then the second ones, and so on, so that column t of group q is
at position t * groups + q. For one group, the whole row, that is the order as it was; with many groups, a SIMD loop
runs over the groups, since a single group is too short for SIMD. A row's result depends neither on its chunk nor on the
number of threads.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from prunelib.kernels.cpu_common import BLOCKED, compiled, correlate, first_of, in_chunks, lesser
from prunelib.kernels.relaxed_swaps.reference import FLAT, NEAR, OUTSIDE, PAIRS, Operands

_FLAT, _NEAR = np.float32(FLAT), np.float32(NEAR)
_FEW = 32  # number of values up to which sorting is faster than a partition
_SHUT = np.float32(BLOCKED / 2)  # above it a group has no giver


def descend(
    operands: Operands, group: int, price: float | None, tolerance: float, rounds: int, threads: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Make relaxed swaps on one objective after the other; see :mod:`prunelib.kernels.relaxed_swaps`.

    A ``price`` requires that groups are whole rows.
    """
    gram, mass = operands.gram, operands.mass
    columns = torch.arange(len(gram)).reshape(-1, group).T.flatten()  # (inputs,), the column at each position
    ordered = gram.contiguous() if group == len(gram) else gram[columns[:, None], columns]
    grams, objectives = ordered.numpy(), operands.shifts[:, columns].numpy()
    blocks = _blocks(grams, group)
    settings = _Settings(
        price=-1.0 if price is None else price,
        outside=0.0 if price is None else OUTSIDE,
        tolerance=tolerance,
        rounds=rounds,
    )

    def work(rows: slice) -> tuple[slice, torch.Tensor]:
        given = (operands.weight, mass, operands.fixed)
        weights, masses, fixed = (tensor[rows][:, columns].numpy() for tensor in given)
        _descend(_empty(grams, blocks), weights, objectives, masses, fixed, settings)
        return rows, torch.empty_like(mass[rows]).index_copy_(1, columns, torch.from_numpy(masses))

    return in_chunks(work, len(mass), threads)


def _blocks(gram: np.ndarray, group: int) -> np.ndarray:
    """Gather G between columns s and t of group q at [s, t, q], (group, group, groups); empty for whole rows."""
    groups = len(gram) // group
    if groups == 1:
        return np.empty((group, group, 0), np.float32)
    positions = np.arange(len(gram)).reshape(group, groups)
    return gram[positions[:, None], positions[None]]


class _Settings(NamedTuple):
    """Settings of a descent; price is negative without one, outside the mass and the slack of the outside."""

    price: float
    outside: float
    tolerance: float
    rounds: int


class _Row(NamedTuple):
    """One row and its state; the outside is its last column, of weight 0.

    gram (inputs, inputs) and blocks (:func:`_blocks`) are float32; weight, mass, slack, corr = G p and moved = d w^2
    are (inputs + 1,) float64. weight32, gradient, energy (the curvature along one mass), closed (BLOCKED for a column
    without mass to give, else 0), open (the mass it may take) and drops are (inputs + 1,) float32, for choosing pairs.
    fixed (inputs + 1,) is bool. givers and takers (groups,) int32 are the pair of each group, best (groups,)
    float32 its drop. Of the givers, a scan over groups needs least = -gradient, twice = 2 w, own = energy and
    given = mass, (groups,), and interaction, G with each column of the group, (group, groups), all float32.
    """

    gram: np.ndarray
    blocks: np.ndarray
    weight: np.ndarray
    mass: np.ndarray
    slack: np.ndarray
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
    best: np.ndarray
    least: np.ndarray
    twice: np.ndarray
    own: np.ndarray
    given: np.ndarray
    interaction: np.ndarray


def _empty(gram, blocks):
    """Allocate the state of one row."""
    inputs, groups = len(gram), len(gram) // len(blocks)
    weight, mass, slack, corr, moved = np.zeros((5, inputs + 1), np.float64)
    weight32, gradient, energy, closed, room32, drops = np.zeros((6, inputs + 1), np.float32)
    givers, takers = np.zeros((2, groups), np.int32)
    best, least, twice, own, given = np.zeros((5, groups), np.float32)
    return _Row(
        gram=gram,
        blocks=blocks,
        weight=weight,
        mass=mass,
        slack=slack,
        corr=corr,
        moved=moved,
        weight32=weight32,
        gradient=gradient,
        energy=energy,
        closed=closed,
        open=room32,
        drops=drops,
        fixed=np.zeros(inputs + 1, np.bool_),
        givers=givers,
        takers=takers,
        best=best,
        least=least,
        twice=twice,
        own=own,
        given=given,
        interaction=np.zeros(blocks.shape[1:], np.float32),
    )


@compiled
def _descend(row, weights, shifts, masses, fixed, settings):
    """Make the relaxed swaps of some rows, one row after the other; changes masses."""
    inputs = weights.shape[1]
    pairs = max(1, inputs // PAIRS)
    for r in range(len(weights)):
        _begin(row, weights[r], masses[r], fixed[r], settings)
        for shift in shifts:
            _set_objective(row, shift)
            for _ in range(settings.rounds):
                loss, gap = _certify(row, settings.price)
                if gap <= settings.tolerance * loss or not _round(row, pairs):
                    break
        masses[r] = np.minimum(row.mass[:inputs], 1.0)


@compiled
def _begin(row, w, m, fixed, settings):
    """Set the masses and c = G p, and the mass, the slack and the gradient of the outside."""
    inputs = w.size
    row.weight[:inputs], row.weight32[:inputs], row.mass[:inputs], row.fixed[:inputs] = w, w, m, fixed
    row.slack[:inputs] = 1.0 - m
    row.mass[inputs], row.slack[inputs] = settings.outside, settings.outside
    row.gradient[inputs] = -settings.price
    pruned = (1.0 - m) * w
    correlate(pruned, np.flatnonzero(pruned), row.gram, row.corr[:inputs])
    for j in range(inputs + 1):
        _open(row, j)


@compiled
def _open(row, j):
    """Set what column j may give and take."""
    row.closed[j] = BLOCKED if row.fixed[j] or row.mass[j] <= 0 else 0.0
    row.open[j] = 0.0 if row.fixed[j] else row.slack[j]


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
    """Compute df/dm_j = d w^2 (1 - 2 m) - 2 w c in float64; for the outside it is minus the price."""
    if j == row.weight.size - 1:
        return np.float64(row.gradient[j])
    return row.moved[j] * (1.0 - 2.0 * row.mass[j]) - 2.0 * row.weight[j] * row.corr[j]


@compiled
def _certify(row, price):
    """Compute the relaxed loss and the dual gap, max <gradient, m - v> over the polytope, with a price over the box."""
    inputs, groups = row.weight.size - 1, row.best.size
    loss, gap = 0.0, 0.0
    gradient = np.empty(inputs // groups)
    for q in range(groups):
        free, budget = 0, 0.0
        for j in range(q, inputs, groups):
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
    """Compute the least <gradient, v> over v in [0, 1] with sum ``budget``; may reorder the gradient."""
    whole = min(int(budget), gradient.size)
    if whole == gradient.size:
        return gradient.sum()
    if gradient.size <= _FEW:
        _sort(gradient)
        ranked = gradient
    else:
        ranked = np.partition(gradient, whole)
    return ranked[:whole].sum() + (budget - whole) * ranked[whole]


@compiled
def _sort(values):
    """Sort a few values by insertion."""
    for end in range(1, values.size):
        value, k = values[end], end
        while k > 0 and values[k - 1] > value:
            values[k] = values[k - 1]
            k -= 1
        values[k] = value


@compiled
def _round(row, pairs):
    """Scan and make the pairs with the largest drops, until ``pairs`` are found; return whether there were any."""
    found = 0
    while found < pairs:
        largest = _scan(row) if row.best.size == 1 else _scan_groups(row)
        if largest <= 0:
            break
        for q in range(row.best.size):
            if row.best[q] >= _NEAR * largest:
                _swap(row, row.givers[q], row.takers[q])
                found += 1
    return found > 0


@compiled
def _scan(row):
    """Find the pair of a row that is one group; return its drop."""
    outside = row.weight.size - 1
    i = _giver(row.gradient[:outside], row.closed[:outside])
    if row.closed[outside] == 0 and (row.closed[i] > 0 or row.gradient[outside] > row.gradient[i]):
        i = outside
    row.givers[0], row.best[0] = i, 0.0
    if row.closed[i] == 0:
        row.takers[0], row.best[0] = _taker(row, i)
        earned = _earned(row, i)
        if earned > row.best[0]:
            row.takers[0], row.best[0] = outside, earned
    return row.best[0]


@compiled
def _giver(gradient, closed):
    """Find the column with the largest gradient of those with mass to give."""
    least = np.float32(BLOCKED)
    for j in range(gradient.size):
        least = lesser(closed[j] - gradient[j], least)
    i = 0
    while closed[i] - gradient[i] != least and i < gradient.size - 1:
        i += 1
    return i


@compiled
def _taker(row, i):
    """Find the column with the largest drop when i gives; return it and the drop."""
    last = row.gram.shape[0]
    interaction = row.gram[min(i, last - 1)]
    w, gradient, energy, free, drops = (
        row.weight32[:last],
        row.gradient[:last],
        row.energy[:last],
        row.open[:last],
        row.drops[:last],
    )
    top, twice, own, mass = row.gradient[i], np.float32(2.0) * row.weight32[i], row.energy[i], np.float32(row.mass[i])
    least = np.float32(0.0)
    for j in range(last):
        drops[j] = _drop(top - gradient[j], own + energy[j] - twice * w[j] * interaction[j], mass, free[j])
        least = lesser(drops[j], least)
    return first_of(drops, least), -least


@compiled
def _drop(slope, curvature, mass, slack):
    """Compute the change of f, at most 0, by the best step within the giver's mass and the taker's slack."""
    # Minima and maxima by ``lesser``, the form that becomes SIMD.
    slope = -lesser(-slope, np.float32(0.0))
    step = lesser(lesser(slack, mass), slope / (np.float32(-2.0) * lesser(-curvature, -_FLAT)))
    return step * (curvature * step - slope)


@compiled
def _scan_groups(row):
    """Find the pair of each group and its drop, all groups side by side; return the largest drop."""
    group, groups = row.blocks.shape[0], row.best.size
    row.givers[:], row.least[:] = 0, 2.0 * BLOCKED
    for t in range(group):
        columns = slice(t * groups, (t + 1) * groups)
        _offer_givers(row.gradient[columns], row.closed[columns], t, row.givers, row.least)
    for t in range(group):
        columns = slice(t * groups, (t + 1) * groups)
        _note_givers(row.givers, t, row.weight32[columns], row.energy[columns], row.mass[columns], row)
        for s in range(group):
            _note_interaction(row.givers, t, row.blocks[t, s], row.interaction[s])
    row.takers[:], row.best[:] = 0, 0.0
    for s in range(group):
        columns = slice(s * groups, (s + 1) * groups)
        w, gradient, energy = row.weight32[columns], row.gradient[columns], row.energy[columns]
        _offer_takers(row, w, gradient, energy, row.open[columns], row.interaction[s], s)
    largest = np.float32(0.0)
    for q in range(groups):
        row.best[q] = row.best[q] if row.least[q] < _SHUT else np.float32(0.0)
        row.givers[q] = row.givers[q] * groups + q
        row.takers[q] = row.takers[q] * groups + q
        largest = -lesser(-largest, -row.best[q])
    return largest


@compiled
def _offer_givers(gradient, closed, t, givers, least):
    """Make column t of each group the giver where its gradient is the largest so far."""
    for q in range(givers.size):
        value = closed[q] - gradient[q]
        better = value < least[q]
        givers[q] = np.int32(t) if better else givers[q]
        least[q] = value if better else least[q]


@compiled
def _note_givers(givers, t, w, energy, mass, row):
    """Set twice, own and given of the givers that are column t of their group."""
    twice, own, given = row.twice, row.own, row.given
    for q in range(givers.size):
        here = givers[q] == t
        twice[q] = np.float32(2.0) * w[q] if here else twice[q]
        own[q] = energy[q] if here else own[q]
        given[q] = np.float32(mass[q]) if here else given[q]


@compiled
def _note_interaction(givers, t, block, interaction):
    """Set the interaction of the givers that are column t of their group, without a gather."""
    for q in range(givers.size):
        interaction[q] = block[q] if givers[q] == t else interaction[q]


@compiled
def _offer_takers(row, w, gradient, energy, slack, interaction, s):
    """Make column s of each group the taker where its drop is the largest so far."""
    takers, best, least, twice, own, given = row.takers, row.best, row.least, row.twice, row.own, row.given
    for q in range(takers.size):
        curvature = own[q] + energy[q] - twice[q] * w[q] * interaction[q]
        drop = -_drop(-least[q] - gradient[q], curvature, given[q], slack[q])
        better = drop > best[q]
        takers[q] = np.int32(s) if better else takers[q]
        best[q] = drop if better else best[q]


@compiled
def _earned(row, i):
    """Compute the drop when i gives to the outside."""
    outside = row.weight.size - 1
    slope, curvature = row.gradient[i] - row.gradient[outside], row.energy[i]
    step = slope / (np.float32(-2.0) * lesser(-curvature, -_FLAT))
    step = lesser(lesser(row.open[outside], np.float32(row.mass[i])), step)
    return step * (slope - curvature * step) if slope > 0 else np.float32(0.0)


@compiled
def _swap(row, i, j):
    """Move mass s from i to j, by the exact line search within their bounds: c += s w_i G_i - s w_j G_j."""
    # In float64: a pair chosen in float32, or before other pairs of its scan were made, may not lower f.
    slope = _slope(row, i) - _slope(row, j)
    if slope <= 0:
        return
    last = row.gram.shape[0] - 1
    wi, wj, gi, gj = row.weight[i], row.weight[j], row.gram[min(i, last)], row.gram[min(j, last)]
    curvature = wi * wi * gi[min(i, last)] - row.moved[i] + wj * wj * gj[min(j, last)] - row.moved[j]
    curvature -= 2.0 * wi * wj * gi[min(j, last)]
    step = min(row.mass[i], row.slack[j])
    if 2.0 * curvature * step > slope:
        step = slope / (2.0 * curvature)
    row.mass[i] -= step
    row.slack[i] += step
    row.mass[j] += step
    row.slack[j] -= step
    _open(row, i)
    _open(row, j)
    _update(row, step * wi, gi, step * wj, gj)


@compiled
def _update(row, give, gi, take, gj):
    """Add give * G_i - take * G_j to c, and set the gradient."""
    weight, mass, corr, moved, gradient = row.weight, row.mass, row.corr, row.moved, row.gradient
    for k in range(gi.size):
        corr[k] += give * gi[k] - take * gj[k]
        gradient[k] = moved[k] * (1.0 - 2.0 * mass[k]) - 2.0 * weight[k] * corr[k]
