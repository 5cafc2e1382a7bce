"""Block moves on the CPU, compiled by numba, in float64 throughout.

The terms of dL, those of one column and those of a pair, are computed once for all moves of a group. Moves are lists of
positions in the order "kept columns, then pruned ones" (:mod:`.moves`), so that one list serves every group.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from prunelib.kernels.block_moves.moves import moves_of
from prunelib.kernels.cpu_common import Figures, compiled, correlate_rows, in_chunks, loss
from prunelib.kernels.interface import LOSS_TOLERANCE, MAX_SWEEPS, ROUNDING, RowResults
from prunelib.masks.patterns import Groups


def move_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, groups: Groups, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Give each group of each row in turn its best pattern; see :mod:`prunelib.kernels.block_moves`."""
    weights, grams = weight.contiguous().numpy(), gram.contiguous().numpy()
    moves = moves_of(groups)

    def work(rows: slice) -> tuple[slice, RowResults]:
        results = RowResults.untouched(mask[rows])
        figures = Figures.of(results)
        column, (v, alone) = np.empty(groups.size, np.int64), np.empty((2, groups.size))
        terms = _Terms(column=column, v=v, alone=alone, pair=np.empty((groups.size, groups.size)))
        _optimise(weights[rows], grams, figures, groups.keep, moves, terms)
        return rows, results

    return in_chunks(work, len(mask), threads)


class _Terms(NamedTuple):
    """Terms of one group by position, kept before pruned.

    column, v and alone = v (2 c + v G_kk) are (size,); pair is 2 v_k v_l G_kl, (size, size), its upper triangle set.
    """

    column: np.ndarray
    v: np.ndarray
    alone: np.ndarray
    pair: np.ndarray


@compiled
def _optimise(weight, gram, figures, keep, moves, terms):
    """Sweep over the groups of each row until a sweep that begins with a c computed anew changes none."""
    mask, sweeps, optimal = figures.mask, figures.sweeps, figures.optimal
    corrs, rows = np.empty(weight.shape, np.float64), np.arange(len(weight))
    while rows.size > 0:
        # A row is optimal only under a c computed anew, without the rounding errors of its updates.
        correlate_rows(np.where(mask, np.float32(0.0), weight), rows, gram, corrs)
        for r in rows:
            w, m, corr = weight[r], mask[r], corrs[r]
            if sweeps[r] == 0:
                figures.loss_before[r] = loss(w, m, corr)
            changed, visits = _sweep_until_still(w, gram, m, corr, keep, moves, terms)
            figures.loss_after[r] = loss(w, m, corr)
            figures.swaps[r] += changed
            sweeps[r] += visits
            optimal[r] = changed == 0
        rows = np.flatnonzero(~optimal & (sweeps < MAX_SWEEPS))


@compiled
def _sweep_until_still(w, gram, m, corr, keep, moves, terms):
    """Sweep until nothing changes, with a c that is only updated; return the numbers of changes and of sweeps."""
    made, sweeps, changed = 0, 0, 1
    while changed > 0 and sweeps < MAX_SWEEPS:
        changed = _sweep(w, gram, m, corr, keep, moves, terms, loss(w, m, corr))
        made += changed
        sweeps += 1
    return made, sweeps


@compiled
def _sweep(w, gram, m, corr, keep, moves, terms, current):
    """Give each group its best pattern under the current c; return the number of groups changed."""
    changed = 0
    for start in range(0, w.size, terms.column.size):
        _set_terms(w, gram, m, corr, start, keep, terms)
        best, change = _best_move(moves, terms)
        if change < -(LOSS_TOLERANCE * current + _rounding(moves.positions[best, : moves.number[best]], terms)):
            _move(moves.positions[best, : moves.number[best]], terms, gram, m, corr)
            current = max(current + change, 0.0)
            changed += 1
    return changed


@compiled
def _set_terms(w, gram, m, corr, start, keep, terms):
    """Set the terms of the group that begins at column ``start``."""
    kept, pruned = 0, keep
    for k in range(start, start + terms.column.size):
        position = kept if m[k] else pruned
        kept, pruned = kept + m[k], pruned + (not m[k])
        terms.column[position] = k
    for position in range(terms.column.size):
        k = terms.column[position]
        v = np.float64(w[k]) if position < keep else -np.float64(w[k])
        terms.v[position] = v
        terms.alone[position] = v * (2.0 * corr[k] + v * gram[k, k])
        for other in range(position):
            terms.pair[other, position] = 2.0 * v * terms.v[other] * gram[k, terms.column[other]]


@compiled
def _best_move(moves, terms):
    """Find the move with the least change, the first of equals, and its change."""
    best, least = 0, np.inf
    for n in range(len(moves.number)):
        change = 0.0
        for i in range(moves.number[n]):
            position = moves.positions[n, i]
            change += terms.alone[position]
            for j in range(i):
                change += terms.pair[moves.positions[n, j], position]
        if change < least:
            best, least = n, change
    return best, least


@compiled
def _rounding(positions, terms):
    """Bound the rounding error of a move's change."""
    size = 0.0
    for i in range(positions.size):
        size += abs(terms.alone[positions[i]])
        for j in range(i):
            size += abs(terms.pair[positions[j], positions[i]])
    return ROUNDING * size


@compiled
def _move(positions, terms, gram, m, corr):
    """Flip the columns of a move: c += v_k G[:, k] for each."""
    for position in positions:
        k, v = terms.column[position], terms.v[position]
        row = gram[k]
        m[k] = not m[k]
        for i in range(corr.size):
            corr[i] += v * row[i]
