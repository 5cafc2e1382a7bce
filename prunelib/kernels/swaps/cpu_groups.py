"""Best swaps within groups of columns on the CPU, compiled by numba: float64 throughout, all pairs of a row a scan.

A group is too short for SIMD over its pairs. Two columns of a group are less than ``group`` columns apart, so for each
distance below that one SIMD loop evaluates the pairs (k, k + distance) of a whole row, in both directions: prune k and
restore k + distance, and the other way round.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from prunelib.kernels.cpu_common import (
    BLOCKED,
    Figures,
    compiled,
    correlate_rows,
    first_of,
    in_chunks,
    inlined,
    lesser,
    loss,
)
from prunelib.kernels.interface import LOSS_TOLERANCE, ROUNDING, RowResults


def swap_best(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, max_swaps: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Make the best swap of each row, at most ``max_swaps`` times; see :mod:`prunelib.kernels.swaps`."""
    weights, grams = weight.contiguous().numpy(), gram.contiguous().numpy()
    bands = _bands(grams, group)

    def work(rows: slice) -> tuple[slice, RowResults]:
        results = RowResults.untouched(mask[rows])
        _swap_best(weights[rows], grams, bands, Figures.of(results), max_swaps)
        return rows, results

    return in_chunks(work, len(mask), threads)


def _bands(gram: np.ndarray, group: int) -> np.ndarray:
    """Compute -2 G[k, k + n] at [n, k], BLOCKED where k and k + n are in two groups; (group, inputs) float64."""
    bands = np.full((group, len(gram)), BLOCKED)
    columns = np.arange(len(gram))
    for distance in range(1, group):
        k = columns[columns % group + distance < group]
        bands[distance, k] = -2.0 * gram[k, k + distance]
    return bands


class _Row(NamedTuple):
    """One row and its state.

    gram (inputs, inputs) is float32 and mask (inputs,) bool; all else is float64. energy is w^2 G_jj, corr is c = G p,
    prune a_u of the kept u and restore b_j of the pruned j (both BLOCKED elsewhere), gain the least change from pruning
    u, (inputs,) each; interaction[n, k] is -2 w_k w_(k+n) G_(k,k+n), (group, inputs), BLOCKED where the two columns are
    in two groups.
    """

    weight: np.ndarray
    gram: np.ndarray
    mask: np.ndarray
    energy: np.ndarray
    corr: np.ndarray
    prune: np.ndarray
    restore: np.ndarray
    gain: np.ndarray
    interaction: np.ndarray


@compiled
def _swap_best(weight, gram, bands, figures, max_swaps):
    """Make best swaps in each row of a chunk, one row after the other."""
    mask, swaps, sweeps = figures.mask, figures.swaps, figures.sweeps
    optimal, losses = figures.optimal, figures.loss_after
    inputs, interaction = len(gram), np.zeros(bands.shape)
    w, energy, corrs = np.empty(inputs), np.empty(inputs), np.empty(weight.shape)
    prune, restore, gain = np.empty(inputs), np.empty(inputs), np.empty(inputs)
    correlate_rows(np.where(mask, np.float32(0.0), weight), np.arange(len(weight)), gram, corrs)
    for r in range(len(weight)):
        w[:], corr = weight[r], corrs[r]
        row = _Row(
            weight=w,
            gram=gram,
            mask=mask[r],
            energy=energy,
            corr=corr,
            prune=prune,
            restore=restore,
            gain=gain,
            interaction=interaction,
        )
        _begin(row, bands)
        figures.loss_before[r] = losses[r] = loss(w, row.mask, corr)
        while True:
            sweeps[r] += 1
            u, j = _best_pair(row, losses[r])
            optimal[r] = u < 0
            if optimal[r] or swaps[r] == max_swaps:
                break
            _swap(row, u, j)
            swaps[r] += 1
            losses[r] = loss(w, row.mask, corr)


@compiled
def _begin(row, bands):
    """Set the interactions, which no swap changes, and the terms of each weight alone."""
    inputs = row.weight.size
    for k in range(inputs):
        row.energy[k] = row.weight[k] * row.weight[k] * row.gram[k, k]
    for distance in range(1, len(bands)):
        near, far = row.weight[: inputs - distance], row.weight[distance:]
        for k in range(near.size):
            band = bands[distance, k]
            row.interaction[distance, k] = BLOCKED if band == BLOCKED else band * (near[k] * far[k])
    _update(row)


@inlined
def _update(row):
    """Set a_u = w_u^2 G_uu + 2 w_u c_u of the kept and b_j = w_j^2 G_jj - 2 w_j c_j of the pruned columns."""
    w, m, energy, corr, prune, restore = row.weight, row.mask, row.energy, row.corr, row.prune, row.restore
    for k in range(w.size):
        linear = 2.0 * w[k] * corr[k]
        prune[k] = energy[k] + linear if m[k] else BLOCKED
        restore[k] = BLOCKED if m[k] else energy[k] - linear


@inlined
def _best_pair(row, current):
    """Find the best swap (u, j) of a row, the lowest u and j of equals; u = -1 where none improves."""
    prune, restore, gain, group = row.prune, row.restore, row.gain, len(row.interaction)
    gain[:] = BLOCKED
    for distance in range(1, group):
        # The interaction is the same in both directions, and BLOCKED between groups, which excludes these pairs.
        near, far = slice(0, gain.size - distance), slice(distance, gain.size)
        interaction = row.interaction[distance, near]
        _set_lesser(gain[near], prune[near], restore[far], interaction)
        _set_lesser(gain[far], prune[far], restore[near], interaction)
    least = BLOCKED
    for u in range(gain.size):
        least = lesser(gain[u], least)
    u = first_of(gain, least)
    j = _partner(row, u)
    rounding = ROUNDING * (abs(prune[u]) + abs(restore[j]) + abs(_interaction(row, u, j)))
    return (u, j) if least < -(LOSS_TOLERANCE * current + rounding) else (-1, -1)


@inlined
def _set_lesser(gain, prune, restore, interaction):
    """Lower gains to the changes of pairs side by side."""
    for k in range(gain.size):
        gain[k] = lesser(prune[k] + restore[k] + interaction[k], gain[k])


@inlined
def _partner(row, u):
    """Find the column to restore for u, the lowest of equals."""
    group = len(row.interaction)
    low = u - u % group
    best, least = low, BLOCKED
    for j in range(low, low + group):
        change = row.restore[j] + _interaction(row, u, j) if j != u else BLOCKED
        if change < least:
            best, least = j, change
    return best


@inlined
def _interaction(row, u, j):
    return row.interaction[abs(u - j), min(u, j)]


@inlined
def _swap(row, u, j):
    """Prune u, restore j: c += w_u G[:, u] - w_j G[:, j]; set what depends on c."""
    row.mask[u], row.mask[j] = False, True
    corr, gu, gj, wu, wj = row.corr, row.gram[u], row.gram[j], row.weight[u], row.weight[j]
    for i in range(corr.size):
        corr[i] += wu * gu[i] - wj * gj[i]
    _update(row)
