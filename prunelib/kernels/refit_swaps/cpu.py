"""Refit swaps on the CPU, compiled by numba: the change of every swap is read off a tableau of the row.

With S the kept columns, P the pruned ones and H = G_SS^-1, the tableau of the sweep operator (Goodnight, 1979) is

    T_SS = -H        T_SP = H G_SP        T_PP = G_PP - G_PS H G_SP

and pruning or restoring column p is a pivot on p: a rank-one change T_ij -= T_ip T_pj / T_pp of everything outside row
and column p. Only the rows of kept columns and the diagonal of T_PP are stored. The rank-one changes of the stored rows
are collected and subtracted several at a time, so that a row is read and written once for eight of them. G is float32,
all else float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from prunelib.kernels.cpu_common import (
    BLOCKED,
    Figures,
    compiled,
    correlate,
    first_of,
    group_columns,
    in_chunks,
    lesser,
)
from prunelib.kernels.interface import MAX_SWEEPS, RowResults
from prunelib.kernels.refit_swaps.reference import BOUND, IMPROVEMENT, LEAST_SCHUR, MOST_TRACE

_PIVOTS = 32  # collected at most before they are subtracted; a multiple of 8


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults, torch.Tensor]]:
    """Sweep over each row until no swap improves it; see :mod:`prunelib.kernels.refit_swaps.reference`."""
    weights, grams = weight.contiguous().numpy(), gram.contiguous().numpy()

    def work(rows: slice) -> tuple[slice, RowResults, torch.Tensor]:
        results = RowResults.untouched(mask[rows])
        figures = Figures.of(results)
        x = np.zeros(figures.mask.shape)
        _refine(weights[rows], grams, group, x, figures)
        return rows, results, torch.from_numpy(x)

    return in_chunks(work, len(mask), threads)


class _Tableau(NamedTuple):
    """The tableau of one row, all float64 except gram (float32), mask (bool), and columns and pending (int64).

    body[s] is row columns[s] of T, (even, inputs), before the pending changes are subtracted: the sum of
    factors[n, s] * pivots[n] over the first pending[0] pivots; factors is (_PIVOTS, even), pivots (_PIVOTS, inputs).
    With an odd number of kept columns body has one more row, of zeros, since rows are updated in pairs. state is x on
    the kept and r = G (w - x) on the pruned columns, schur the diagonal of T_PP (BLOCKED where kept), both (inputs,)
    and up to date. scratch is (inputs,).
    """

    gram: np.ndarray
    mask: np.ndarray
    columns: np.ndarray
    body: np.ndarray
    factors: np.ndarray
    pivots: np.ndarray
    pending: np.ndarray
    state: np.ndarray
    schur: np.ndarray
    scratch: np.ndarray
    group: int


@compiled
def _refine(weight, gram, group, x, figures):
    swaps, sweeps, optimal = figures.swaps, figures.sweeps, figures.optimal
    for r in range(len(weight)):
        w = weight[r]
        t = _tableau(w, gram, figures.mask[r], group)
        figures.loss_before[r] = _settle(t, w)
        threshold = IMPROVEMENT * (w * w).sum()
        ended = False
        while sweeps[r] < MAX_SWEEPS and not ended:
            made = _sweep(t, threshold)
            sweeps[r] += 1
            swaps[r] += made
            ended = made == 0
        figures.loss_after[r] = _settle(t, w)
        optimal[r] = ended and _within_bound(t, w, figures.loss_after[r])
        for u in t.columns:
            x[r, u] = t.state[u]


@compiled
def _tableau(w, gram, mask, group):
    """Build the tableau of a row: begin with that of no kept columns and restore them one by one."""
    inputs, columns = w.size, np.flatnonzero(mask)
    even = columns.size + columns.size % 2
    body, factors, pivots = np.zeros((even, inputs)), np.zeros((_PIVOTS, even)), np.zeros((_PIVOTS, inputs))
    state, schur, scratch = np.empty(inputs), np.empty(inputs), np.empty(inputs)
    for s in range(columns.size):
        body[s] = gram[columns[s]]
    for j in range(inputs):
        schur[j] = gram[j, j]
    correlate(w, np.arange(inputs), gram, state)
    pending = np.zeros(1, np.int64)
    t = _Tableau(
        gram=gram,
        mask=mask,
        columns=columns,
        body=body,
        factors=factors,
        pivots=pivots,
        pending=pending,
        state=state,
        schur=schur,
        scratch=scratch,
        group=group,
    )
    for s in range(columns.size):
        row = _next_pivot(t)
        _stored_row(t, s, row)
        _restore(t, s, columns[s], row)
    return t


@compiled
def _next_pivot(t):
    """Return the array in t.pivots for the row of the next pivot."""
    if t.pending[0] == _PIVOTS:
        _subtract_pending(t)
    return t.pivots[t.pending[0]]


@compiled
def _stored_row(t, s, row):
    """Set row to row columns[s] of T."""
    row[:] = t.body[s]
    for n in range(t.pending[0]):
        factor, pivot = t.factors[n, s], t.pivots[n]
        for i in range(row.size):
            row[i] -= factor * pivot[i]


@compiled
def _pruned_row(t, j, row):
    """Set row to row j of T: -y on the kept columns with y = -H G_Sj, and G (e_j + y) on the pruned ones.

    Rows of pruned columns are not stored: this costs one product with G for each swap.
    """
    y = t.scratch
    for s in range(t.columns.size):
        u = t.columns[s]
        y[u] = -t.body[s, j]
        for n in range(t.pending[0]):
            y[u] += t.factors[n, s] * t.pivots[n, j]
    y[j] = 1.0
    correlate(y, t.columns, t.gram, row)
    for u in t.columns:
        if u != j:
            row[u] = -y[u]


@compiled
def _pivot(t, row, p, at, sign):
    """Pivot on p, with its row as the next of t.pivots and T_pp = at; sign is 1 to restore p, -1 to prune it."""
    factors, step = t.factors[t.pending[0]], t.state[p] / at
    for s in range(t.columns.size):
        factors[s] = row[t.columns[s]] / at
    for i in range(row.size):
        t.state[i] -= step * row[i]
        t.schur[i] = max(t.schur[i] - row[i] / at * row[i], LEAST_SCHUR)
    t.state[p] = sign * step
    row[p] = at - sign  # so that T_sp - factor * row[p] becomes sign * factor
    t.pending[0] += 1


@compiled
def _restore(t, s, j, row):
    """Restore column j, whose row is the next pivot, into slot s."""
    at = max(row[j], LEAST_SCHUR)
    _pivot(t, row, j, at, 1.0)
    for i in range(row.size):
        t.body[s, i] = row[i] / at
    t.body[s, j] = -1.0 / at
    t.factors[: t.pending[0], s] = 0.0
    t.mask[j], t.columns[s], t.schur[j] = True, j, BLOCKED


@compiled
def _prune(t, s, row):
    """Prune the column in slot s, whose row is the next pivot."""
    u = t.columns[s]
    at = row[u]
    _pivot(t, row, u, at, -1.0)
    t.mask[u], t.schur[u] = False, -1.0 / at


@compiled
def _subtract_pending(t):
    """Subtract the pending changes from the rows of body, two rows and eight pivots at a time."""
    # The number of pivots is rounded up to a multiple of eight: those beyond the pending ones have a factor of 0.
    t.factors[t.pending[0] :] = 0.0
    for s in range(0, len(t.body), 2):
        for n in range(0, t.pending[0], 8):
            _subtract_eight(t.body[s], t.factors[n : n + 8, s], t.body[s + 1], t.factors[n : n + 8, s + 1], t.pivots, n)
    t.pending[0] = 0


@compiled
def _subtract_eight(a, f, b, g, pivots, n):
    """Subtract f[i] * pivots[n + i] from row a, and g[i] * pivots[n + i] from row b, for eight i."""
    p0, p1, p2, p3 = pivots[n], pivots[n + 1], pivots[n + 2], pivots[n + 3]
    p4, p5, p6, p7 = pivots[n + 4], pivots[n + 5], pivots[n + 6], pivots[n + 7]
    f0, f1, f2, f3, f4, f5, f6, f7 = f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]
    g0, g1, g2, g3, g4, g5, g6, g7 = g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7]
    for i in range(a.size):
        a[i] -= (f0 * p0[i] + f1 * p1[i] + f2 * p2[i] + f3 * p3[i]) + (
            f4 * p4[i] + f5 * p5[i] + f6 * p6[i] + f7 * p7[i]
        )
        b[i] -= (g0 * p0[i] + g1 * p1[i] + g2 * p2[i] + g3 * p3[i]) + (
            g4 * p4[i] + g5 * p5[i] + g6 * p6[i] + g7 * p7[i]
        )


@compiled
def _settle(t, w):
    """Correct x and r for the rounding errors of updates: r = G (w - x), x += H r_S; return the loss."""
    _subtract_pending(t)
    e, r = w.copy(), np.empty(w.size)  # (inputs,)
    for u in t.columns:
        e[u] -= t.state[u]
    correlate(e, np.arange(w.size), t.gram, r)
    loss = (e * r).sum()
    for j in np.flatnonzero(~t.mask):
        t.state[j], r[j] = r[j], 0.0
    for s in range(t.columns.size):
        t.state[t.columns[s]] -= (t.body[s] * r).sum()
    return max(loss, 0.0)


@compiled
def _sweep(t, threshold):
    """Evaluate all swaps, visit each u that improves, best first, make its best swap; return the number of swaps."""
    _subtract_pending(t)
    change = np.empty(t.columns.size)
    for s in range(change.size):
        change[s], _ = _best_swap(t, t.columns[s], t.body[s])
    candidates = np.flatnonzero(change < -threshold)
    made = 0
    # Mergesort is stable: of equal changes the lower slot comes first.
    for s in candidates[np.argsort(change[candidates], kind="mergesort")]:
        row = _next_pivot(t)
        _stored_row(t, s, row)
        now, j = _best_swap(t, t.columns[s], row)
        if now < -threshold:
            _prune(t, s, row)
            row = _next_pivot(t)
            t.columns[s] = j
            _pruned_row(t, j, row)
            _restore(t, s, j, row)
            made += 1
    return made


@compiled
def _best_swap(t, u, row):
    """Find the least change from pruning u, whose row of T is given, and its j, the lowest of equals."""
    near = group_columns(t.group, u)
    h = -1.0 / row[u]
    step = t.state[u] * h
    # T_uj is A_ju and T_uu is -H_uu; schur is BLOCKED where kept, which makes the change of a kept j nearly 0.
    a, r, schur = row[near], t.state[near], t.schur[near]
    changes = t.scratch[: a.size]
    least = 0.0
    for j in range(a.size):
        residual = r[j] + step * a[j]
        changes[j] = -(residual * residual) / (schur[j] + h * a[j] * a[j])
        least = lesser(changes[j], least)
    return step * t.state[u] + least, near.start + first_of(changes, least)


@compiled
def _within_bound(t, w, loss):
    """Return whether no swap improves the loss without the ridge by more than the bound."""
    ridge = np.float64(t.gram[0, 0]) - 1.0
    allowed = BOUND * ridge * (w * w).sum()
    e = w.copy()  # (inputs,)
    for u in t.columns:
        e[u] -= t.state[u]
    squared = (e * e).sum()
    if loss - ridge * squared <= allowed:
        return True
    # (inputs,): |H_u| of the kept and |A_j| of the pruned columns
    length, trace = np.zeros(w.size), 0.0
    for s in range(t.columns.size):
        row = t.body[s]
        trace -= row[t.columns[s]]
        for i in range(w.size):
            length[i] += row[i] * row[i]
    largest = 0.0
    for j in range(w.size):
        largest = max(largest, 0.0 if t.mask[j] else (1.0 + length[j]) / t.schur[j])
    if (trace + largest) * ridge > MOST_TRACE:
        return False
    length[:] = np.sqrt(length)
    for s in range(t.columns.size):
        if _largest_gain(t, t.columns[s], t.body[s], length, squared, ridge) > allowed:
            return False
    return True


@compiled
def _largest_gain(t, u, row, length, squared, ridge):
    """Bound the gain of every swap that prunes u, whose row of T is given."""
    near = group_columns(t.group, u)
    h = -1.0 / row[u]
    step = t.state[u] * h
    begun = np.sqrt(squared) + abs(step) * length[u]
    largest = 0.0
    for j in range(near.start, near.stop):
        if not t.mask[j]:
            residual, below = t.state[j] + step * row[j], t.schur[j] + h * row[j] * row[j]
            farthest = begun + abs(residual) / below * (1.0 + length[j] + abs(row[j]) * h * length[u])
            change = step * t.state[u] - residual * residual / below
            largest = max(largest, ridge * (2.0 * farthest * farthest - squared) - change)
    return largest
