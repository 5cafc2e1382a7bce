"""Swaps on the CPU, compiled by numba: here sweeps within whole rows that are not wide.

Best swaps within whole rows are in :mod:`.cpu_best`, those within groups in :mod:`.cpu_groups`, sweeps over wide rows
in :mod:`.cpu_wide`.

Scans run in float32 with SIMD, decisions in float64 (:mod:`prunelib.kernels.swaps`). The correlation c = G p is in
float64 throughout. Only the u that a bound does not exclude are scanned.

Rows are scanned in chunks, tile by tile of G: a tile that fits the core's cache is read by all rows of a chunk. A row's
result depends neither on its chunk nor on the number of threads.
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
    tile_rows,
)
from prunelib.kernels.interface import LOSS_TOLERANCE, MAX_SWEEPS, ROUNDING, WIDE, RowResults
from prunelib.kernels.swaps import cpu_best, cpu_wide
from prunelib.kernels.swaps import cpu_groups as group_swaps
from prunelib.kernels.swaps.cpu_terms import (
    candidates,
    least_restore,
    least_restores,
    move,
    prune_term,
    rounding_of,
)
from prunelib.kernels.swaps.reach import reach_of


def swap_best(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, max_swaps: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Make the best swap of each row, at most ``max_swaps`` times; see :mod:`prunelib.kernels.swaps`."""
    if group < len(gram):
        return group_swaps.swap_best(weight, gram, mask, group, max_swaps, threads)
    return cpu_best.swap_best(weight, gram, mask, max_swaps, threads)


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Swap until no swap improves a row; see :mod:`prunelib.kernels.swaps`."""
    if group < len(gram):
        return group_swaps.swap_best(weight, gram, mask, group, MAX_SWEEPS, threads)
    if len(gram) >= WIDE:
        return cpu_wide.swap_to_optimum(weight, gram, mask, threads)
    return _sweep_chunks(weight, gram, mask, threads)


class _Rows(NamedTuple):
    """A chunk of rows and their state.

    weight (rows, inputs), gram (inputs, inputs) and its diag, norm = sqrt(diag) and reach (inputs,) are float32; mask
    (rows, inputs) is bool. corr is c = G p (rows, inputs) in float64, restore is b_j of the pruned j, BLOCKED where
    kept, (rows, inputs) in float32. least, largest and heaviest (rows,) are the least b_j, the largest
    |b_j| and the largest |w_j| norm_j of the pruned j. promising[r, u] says whether pruning u could improve the row,
    gain[r, u] is the least change from pruning u as a float32 scan found it, and margin[r, u] bounds the rounding error
    of gain: (rows, inputs) each. scratch (inputs,) is float64.
    """

    weight: np.ndarray
    gram: np.ndarray
    diag: np.ndarray
    norm: np.ndarray
    reach: np.ndarray
    mask: np.ndarray
    corr: np.ndarray
    restore: np.ndarray
    least: np.ndarray
    largest: np.ndarray
    heaviest: np.ndarray
    promising: np.ndarray
    gain: np.ndarray
    margin: np.ndarray
    scratch: np.ndarray


def _sweep_chunks(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    weights, grams, diag = weight.contiguous().numpy(), gram.contiguous().numpy(), gram.diagonal().numpy().copy()
    reach = reach_of(gram, len(gram))[:, 0].contiguous().numpy()

    def work(rows: slice) -> tuple[slice, RowResults]:
        results = RowResults.untouched(mask[rows])
        figures = Figures.of(results)
        count, inputs = shape = figures.mask.shape
        chunk = _Rows(
            weight=weights[rows],
            gram=grams,
            diag=diag,
            norm=np.sqrt(diag),
            reach=reach,
            mask=figures.mask,
            corr=np.empty(shape),
            restore=np.empty(shape, np.float32),
            least=np.empty(count, np.float32),
            largest=np.empty(count, np.float32),
            heaviest=np.empty(count, np.float32),
            promising=np.empty(shape, np.bool_),
            gain=np.empty(shape, np.float32),
            margin=np.zeros(shape, np.float32),
            scratch=np.empty(inputs),
        )
        _sweep(chunk, figures, MAX_SWEEPS, tile_rows(grams))
        return rows, results

    return in_chunks(work, len(mask), threads)


@compiled
def _sweep(rows, figures, max_sweeps, tile):
    """Sweep over all rows of a chunk until none has a swap that improves."""
    swaps, sweeps, optimal, losses = figures.swaps, figures.sweeps, figures.optimal, figures.loss_after
    active = _begin(rows, figures)
    while active.any():
        _set_promising(rows, active)
        _scan(rows, active, tile)
        for r in np.flatnonzero(active):
            sweeps[r] += 1
            made = _visit(rows, r, losses[r])
            swaps[r] += made
            losses[r] = loss(rows.weight[r], rows.mask[r], rows.corr[r])
            optimal[r] = made == 0
            active[r] = made > 0 and sweeps[r] < max_sweeps


@compiled
def _begin(rows, figures):
    """Set c = G p, b and the loss of every row; return which rows are active: all."""
    pruned = np.where(rows.mask, np.float32(0.0), rows.weight)
    correlate_rows(pruned, np.arange(len(pruned)), rows.gram, rows.corr)
    for r in range(len(pruned)):
        _move(rows, r, 0, 0.0, 0, 0.0)  # adds nothing to c, and sets b from it
        figures.loss_before[r] = figures.loss_after[r] = loss(rows.weight[r], rows.mask[r], rows.corr[r])
    return np.ones(len(pruned), np.bool_)


@inlined
def _swap(rows, r, u, j):
    """Prune u and restore j: p gains w_u at u and loses w_j at j."""
    rows.mask[r, u], rows.mask[r, j] = False, True
    _move(rows, r, u, np.float64(rows.weight[r, u]), j, -np.float64(rows.weight[r, j]))


@inlined
def _move(rows, r, u, pu, j, pj):
    """Add p_u G[:, u] + p_j G[:, j] to c; set b_j of the pruned j, and their bounds."""
    w, m, corr, restore, gram = rows.weight[r], rows.mask[r], rows.corr[r], rows.restore[r], rows.gram
    move(w, m, rows.diag, corr, restore, gram[u], pu, gram[j], pj)
    _set_bounds(rows, r)


@inlined
def _set_bounds(rows, r):
    """Set the least b_j, the largest |b_j| and the largest |w_j| norm_j of the pruned j."""
    w, m, norm, restore = rows.weight[r], rows.mask[r], rows.norm, rows.restore[r]
    least, largest, heaviest = np.float32(BLOCKED), np.float32(0.0), np.float32(0.0)
    # Maxima are minima of negated values: ``lesser`` is the form that becomes a SIMD reduction.
    for j in range(w.size):
        least = lesser(restore[j], least)
        largest = lesser(np.float32(0.0) if m[j] else -abs(restore[j]), largest)
        heaviest = lesser(np.float32(0.0) if m[j] else -abs(w[j]) * norm[j], heaviest)
    rows.least[r], rows.largest[r], rows.heaviest[r] = least, -largest, -heaviest


@compiled
def _set_promising(rows, active):
    """Set promising[r, u]: whether pruning a kept u could improve an active row, rounding error included."""
    for r in np.flatnonzero(active):
        w, m, corr, diag, norm, reach = rows.weight[r], rows.mask[r], rows.corr[r], rows.diag, rows.norm, rows.reach
        least, largest, heaviest, promising = rows.least[r], rows.largest[r], rows.heaviest[r], rows.promising[r]
        for u in range(w.size):
            prune = np.float32(prune_term(w[u], diag[u], corr[u]))
            margin = rounding_of(prune, w[u], norm[u], largest, heaviest)
            promising[u] = m[u] & _may_improve(_least_change(prune, w[u], reach[u], least, heaviest), margin)


@compiled
def _scan(rows, active, tile):
    """Set gain[r, u] = a_u + min_j (b_j - 2 w_u w_j G_uj) in float32, and its margin, for promising u."""
    inputs = rows.diag.size
    chosen = np.empty(min(tile, inputs), np.int64)
    for start in range(0, inputs, tile):
        # All active rows read this tile of G while it is in the core's cache.
        for r in np.flatnonzero(active):
            w, corr, gain, margin = rows.weight[r], rows.corr[r], rows.gain[r], rows.margin[r]
            promising = rows.promising[r]
            count = 0
            for u in range(start, min(start + tile, inputs)):
                gain[u] = BLOCKED
                chosen[count] = u  # overwritten by the next u unless u is promising
                count += promising[u]
            least_restores(chosen[:count], w, rows.gram, rows.restore[r], gain)
            for u in chosen[:count]:
                prune = prune_term(w[u], rows.diag[u], corr[u])
                gain[u] += prune
                margin[u] = rounding_of(prune, w[u], rows.norm[u], rows.largest[r], rows.heaviest[r])


@inlined
def _least_change(prune, wu, reach, least, heaviest):
    """Compute a lower bound of dL(u, j) over all pruned j."""
    return prune + least - np.float32(2.0) * abs(wu) * reach * heaviest


@inlined
def _may_improve(least_change, margin):
    """Return whether a swap may improve: one margin is for the rounding of a scan, two for that of the bound itself."""
    return least_change < 3 * margin


@inlined
def _best_partner(rows, r, u):
    """Find in float64 the least change from pruning u, its j (the lowest of equals), and the rounding-error bound."""
    w, m, diag, corr, row, changes = rows.weight[r], rows.mask[r], rows.diag, rows.corr[r], rows.gram[u], rows.scratch
    wu = np.float64(w[u])
    prune = prune_term(wu, diag[u], corr[u])
    least = BLOCKED
    for j in range(w.size):
        wj = np.float64(w[j])
        changes[j] = BLOCKED if m[j] else wj * (wj * diag[j] - 2.0 * (corr[j] + wu * row[j]))
        least = lesser(changes[j], least)
    j = first_of(changes, least)
    rounding = ROUNDING * (abs(prune) + abs(rows.restore[r, j]) + abs(least))
    return prune + least, j, rounding


@compiled
def _visit(rows, r, current):
    """Visit each u that may improve, best first, make its best swap under the current c; return the number of swaps."""
    w, gain, margin = rows.weight[r], rows.gain[r], rows.margin[r]
    made = 0
    for u in candidates(gain, margin):
        # After a swap of this sweep gain is out of date: the bound, then a scan of one u, may save the float64 scan.
        prune = prune_term(w[u], rows.diag[u], rows.corr[r, u])
        least = _least_change(prune, w[u], rows.reach[u], rows.least[r], rows.heaviest[r])
        if not _may_improve(least, margin[u]):
            continue
        if prune + least_restore(w[u], w, rows.gram[u], rows.restore[r]) > margin[u]:
            continue
        change, j, rounding = _best_partner(rows, r, u)
        if change < -(LOSS_TOLERANCE * current + rounding):
            _swap(rows, r, u, j)
            made += 1
            current = max(current + change, 0.0)
    return made
