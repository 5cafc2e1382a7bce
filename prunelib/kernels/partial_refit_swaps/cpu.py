"""Partial refit swaps on the CPU, compiled by numba: float32 finds the u that may improve, float64 decides.

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
    group_columns,
    in_chunks,
    lesser,
    tile_rows,
)
from prunelib.kernels.interface import FLOAT32_ROUNDING, MAX_SWEEPS, RowResults
from prunelib.kernels.partial_refit_swaps.reference import DESCENTS
from prunelib.kernels.refit_swaps.reference import IMPROVEMENT


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, start: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults, torch.Tensor]]:
    """Sweep over each row until no swap improves it; see :mod:`prunelib.kernels.partial_refit_swaps.reference`."""
    weights, grams, diag = weight.contiguous().numpy(), gram.contiguous().numpy(), gram.diagonal().numpy().copy()

    def work(rows: slice) -> tuple[slice, RowResults, torch.Tensor]:
        results = RowResults.untouched(mask[rows])
        figures, x = Figures.of(results), start[rows].numpy().copy()
        corr32, closed, gain = np.zeros((3, *x.shape), np.float32)
        chunk = _Rows(
            weight=weights[rows],
            gram=grams,
            diag=diag,
            mask=figures.mask,
            x=x,
            corr=np.empty(x.shape, np.float64),
            corr32=corr32,
            closed=closed,
            gain=gain,
            scratch=np.empty(x.shape[1], np.float64),
            group=group,
        )
        _refine(chunk, figures, tile_rows(grams))
        return rows, results, torch.from_numpy(x)

    return in_chunks(work, len(mask), threads)


class _Rows(NamedTuple):
    """A chunk of rows and their state.

    gram (inputs, inputs) and its diag (inputs,) are float32; mask (rows, inputs) is bool. weight, x and corr, which is
    c = G (w - x), are (rows, inputs) float64; corr32 is c, closed is BLOCKED where kept and else 0, and gain[r, u] the
    least change from pruning u as a scan found it, all (rows, inputs) float32.
    """

    weight: np.ndarray
    gram: np.ndarray
    diag: np.ndarray
    mask: np.ndarray
    x: np.ndarray
    corr: np.ndarray
    corr32: np.ndarray
    closed: np.ndarray
    gain: np.ndarray
    scratch: np.ndarray
    group: int


@compiled
def _refine(rows, figures, tile):
    """Sweep over all rows of a chunk and descend, until a sweep makes no swap."""
    swaps, sweeps, optimal = figures.swaps, figures.sweeps, figures.optimal
    active = np.ones(len(rows.mask), np.bool_)
    correlate_rows(rows.weight - rows.x, np.arange(active.size), rows.gram, rows.corr)
    for r in range(active.size):
        rows.closed[r] = np.where(rows.mask[r], np.float32(BLOCKED), np.float32(0.0))
        rows.corr32[r] = rows.corr[r]
        figures.loss_before[r] = _loss(rows, r)
    while active.any():
        _scan(rows, active, tile)
        for r in np.flatnonzero(active):
            made = _visit(rows, r)
            sweeps[r] += 1
            swaps[r] += made
            optimal[r] = made == 0
            active[r] = made > 0 and sweeps[r] < MAX_SWEEPS
            if made > 0:
                _descend(rows, r)
    for r in range(active.size):
        figures.loss_after[r] = _loss(rows, r)


@compiled
def _loss(rows, r):
    """Compute the row's loss e^T c with e = w - x."""
    return max(((rows.weight[r] - rows.x[r]) * rows.corr[r]).sum(), 0.0)


@compiled
def _scan(rows, active, tile):
    """Set gain[r, u] = min_j dL(u, j) in float32 for the kept u of active rows, BLOCKED for the pruned."""
    inputs = rows.diag.size
    kept = np.empty(min(tile, inputs), np.int64)
    scale = np.float32(1.0) / np.sqrt(rows.diag)
    for start in range(0, inputs, tile):
        for r in np.flatnonzero(active):
            x, corr, gain = rows.x[r], rows.corr[r], rows.gain[r]
            count = 0
            for u in range(start, min(start + tile, inputs)):
                gain[u] = BLOCKED
                if rows.mask[r, u]:
                    kept[count] = u
                    count += 1
            _least_restores(kept[:count], x, rows.gram, rows.corr32[r], rows.closed[r], scale, rows.group, gain)
            for u in kept[:count]:
                gain[u] += _prune_term(x[u], rows.diag[u], corr[u])


@compiled
def _prune_term(x, guu, cu):
    """Compute the change from pruning u alone, 2 x_u c_u + x_u^2 G_uu."""
    return x * (x * guu + 2.0 * cu)


@compiled
def _least_restores(kept, x, gram, corr, closed, scale, group, gain):
    """Set gain[u] = -max_j (c_j + x_u G_uj)^2 / G_jj over the group of each u; over a whole row, four u at a time."""
    whole = kept.size - kept.size % 4 if group == x.size else 0
    # Four u at a time: c_j, closed_j and the scale are loaded once for four pairs.
    for k in range(0, whole, 4):
        u0, u1, u2, u3 = kept[k], kept[k + 1], kept[k + 2], kept[k + 3]
        g0, g1, g2, g3 = gram[u0], gram[u1], gram[u2], gram[u3]
        x0, x1, x2, x3 = np.float32(x[u0]), np.float32(x[u1]), np.float32(x[u2]), np.float32(x[u3])
        m0 = m1 = m2 = m3 = np.float32(BLOCKED)
        for j in range(x.size):
            c, shut, unit = corr[j], closed[j], scale[j]
            t0, t1, t2, t3 = (
                (c + x0 * g0[j]) * unit,
                (c + x1 * g1[j]) * unit,
                (c + x2 * g2[j]) * unit,
                (c + x3 * g3[j]) * unit,
            )
            m0, m1 = lesser(shut - t0 * t0, m0), lesser(shut - t1 * t1, m1)
            m2, m3 = lesser(shut - t2 * t2, m2), lesser(shut - t3 * t3, m3)
        gain[u0], gain[u1], gain[u2], gain[u3] = m0, m1, m2, m3
    for u in kept[whole:]:
        gain[u] = _least_restore(u, np.float32(x[u]), gram[u], corr, closed, scale, group)


@compiled
def _least_restore(u, xu, row, corr, closed, scale, group):
    """Compute -max_j (c_j + x_u G_uj)^2 / G_jj over the group of u, in float32."""
    near = group_columns(group, u)
    row, corr, closed, scale = row[near], corr[near], closed[near], scale[near]
    least = np.float32(BLOCKED)
    for j in range(row.size):
        t = (corr[j] + xu * row[j]) * scale[j]
        least = lesser(closed[j] - t * t, least)
    return least


@compiled
def _visit(rows, r):
    """Visit each u with a swap that improves, best first, make its best swap now; return the number of swaps."""
    gain, threshold = rows.gain[r], IMPROVEMENT * (rows.weight[r] ** 2).sum()
    size = np.abs(rows.corr32[r]).max() + 2.0 * np.abs(rows.x[r]).max()
    # size^2 bounds the magnitude of the terms of every gain, so that no other u can improve.
    candidates = np.flatnonzero(gain < FLOAT32_ROUNDING * size * size)
    change = np.zeros(candidates.size)
    for k in range(candidates.size):
        change[k], _ = _best_swap(rows, r, candidates[k])
    made = 0
    # Mergesort is stable: of equal changes the lower u comes first.
    for k in np.argsort(change, kind="mergesort"):
        if change[k] >= -threshold:
            break
        u = candidates[k]
        now, j = _best_swap(rows, r, u)
        if now < -threshold:
            _swap(rows, r, u, j)
            made += 1
    return made


@compiled
def _best_swap(rows, r, u):
    """Find in float64 the least change from pruning u, and its j, the lowest of equals."""
    near = group_columns(rows.group, u)
    row, corr, closed = rows.gram[u, near], rows.corr[r, near], rows.closed[r, near]
    diag, changes, xu, least = rows.diag[near], rows.scratch[near], rows.x[r, u], BLOCKED
    for j in range(row.size):
        restored = corr[j] + xu * row[j]
        changes[j] = closed[j] - restored * restored / diag[j]
        least = lesser(changes[j], least)
    j = near.start + first_of(changes, least)
    return _prune_term(xu, rows.diag[u], rows.corr[r, u]) + least, j


@compiled
def _swap(rows, r, u, j):
    """Prune u and restore j with its best value: c += x_u G_u - x_j G_j."""
    corr, corr32, gu, gj = rows.corr[r], rows.corr32[r], rows.gram[u], rows.gram[j]
    xu = rows.x[r, u]
    xj = (corr[j] + xu * gu[j]) / rows.diag[j]
    for i in range(corr.size):
        corr[i] += xu * gu[i] - xj * gj[i]
        corr32[i] = corr[i]
    rows.x[r, u], rows.x[r, j] = 0.0, xj
    rows.mask[r, u], rows.mask[r, j] = False, True
    rows.closed[r, u], rows.closed[r, j] = 0.0, BLOCKED


@compiled
def _descend(rows, r):
    """Take the best step of each kept weight in turn, DESCENTS times."""
    x, corr = rows.x[r], rows.corr[r]
    kept = np.flatnonzero(rows.mask[r])
    for _ in range(DESCENTS):
        for i in kept:
            step, row = corr[i] / rows.diag[i], rows.gram[i]
            x[i] += step
            for k in range(corr.size):
                corr[k] -= step * row[k]
    rows.corr32[r] = corr
