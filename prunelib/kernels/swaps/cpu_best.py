"""Best swaps within whole rows on the CPU, compiled by numba: the paper's order, without its scans of all pairs.

To find the best swap, a scan need not find the least change of every u. Once the change of a good swap is known, it
leaves out what has a bound above it: first every u by the bound over its whole row, then, of the u that remain,
segments of columns (:mod:`.cpu_rows`). It begins with the runner-up of the scan before, whose change a swap hardly
alters. Float64 decides as after a scan of all pairs (:mod:`prunelib.kernels.swaps`): the swaps are the same, to the
last.
"""

from collections.abc import Iterator

import numpy as np
import torch

from prunelib.kernels.cpu_common import BLOCKED, compiled, loss
from prunelib.kernels.interface import LOSS_TOLERANCE, RowResults
from prunelib.kernels.swaps.cpu_rows import (
    begin,
    best_partner,
    find_segments,
    least_restore_in,
    mark_promising,
    promising_of,
    refine_rows,
    swap,
    threshold,
)
from prunelib.kernels.swaps.cpu_terms import least_restore, prune_term, rounding_of


def swap_best(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    max_swaps: int,
    threads: int,
    segment: int = 64,
    strip: int = 32,
) -> Iterator[tuple[slice, RowResults]]:
    """Make the best swap of each row, at most ``max_swaps`` times; see :mod:`prunelib.kernels.swaps`."""
    kernel = lambda rows, figures, _: _swap_best(rows, figures, max_swaps)  # noqa: E731
    return refine_rows(kernel, weight, gram, mask, threads, segment, strip)


@compiled
def _swap_best(rows, figures, max_swaps):
    """Make the best swap of each row of a chunk, until it has none that improves or has made the most."""
    swaps, sweeps, optimal, losses = figures.swaps, figures.sweeps, figures.optimal, figures.loss_after
    active = begin(rows, figures)
    chosen = np.empty(rows.diag.size, np.int64)
    for r in range(len(active)):
        runner_up = 0
        while active[r]:
            sweeps[r] += 1
            reachable = _scan(rows, r, runner_up, chosen)
            u, j, runner_up = _best_pair(rows, r, losses[r], reachable)
            optimal[r] = u < 0
            active[r] = u >= 0 and swaps[r] < max_swaps
            if active[r]:
                swap(rows, r, u, j)
                swaps[r] += 1
                losses[r] = loss(rows.weight[r], rows.mask[r], rows.corr[r])


@compiled
def _scan(rows, r, first, chosen):
    """Set gain[r, u] = a_u + min_j (b_j - 2 w_u w_j G_uj) in float32 of each u that may have the best swap.

    ``first`` is a u to begin with, if it is kept; ``chosen`` (inputs,) is scratch. Return what the best change is at
    most: u with a larger gain - margin cannot have it.
    """
    w, m, diag, norm, corr, restore = rows.weight[r], rows.mask[r], rows.diag, rows.norm, rows.corr[r], rows.restore[r]
    least, heavy, gain, margin = rows.least[r], rows.heavy[r], rows.gain[r], rows.margin[r]
    gram, reach, starts, segment, strip = rows.gram, rows.reach, rows.starts, rows.segment, rows.strip
    reachable = np.float32(0.0)
    if m[first]:
        prune = np.float32(prune_term(w[first], diag[first], corr[first]))
        change = prune + least_restore(w[first], w, gram[first], restore)
        margin_of_first = rounding_of(prune, w[first], norm[first], rows.largest[r], rows.heaviest[r])
        reachable = min(reachable, change + margin_of_first)
    mark_promising(rows, r, reachable)
    count = promising_of(gain, (0, w.size), chosen)
    for u in chosen[:count]:
        prune = prune_term(w[u], diag[u], corr[u])
        below = threshold(reachable, prune, margin[u])
        found = find_segments(u, w[u], below, least, heavy, reach, starts, segment, strip)
        gain[u] = prune + least_restore_in(u, w, gram, restore, starts, found, segment)
        reachable = min(reachable, gain[u] + margin[u])
    return reachable


@compiled
def _best_pair(rows, r, current, reachable):
    """Find the best swap (u, j) of a row in float64, the lowest u of equals; u = -1 where none improves.

    Return it, and the runner-up: of the other u that were scanned the one with the least gain.
    """
    gain, margin = rows.gain[r], rows.margin[r]
    best, best_u, best_j = 0.0, -1, -1
    for u in np.flatnonzero(gain - margin <= reachable):
        # In float64 the best j is among those within two margins of the least, and a third for the bound.
        least = gain[u] - np.float32(prune_term(rows.weight[r, u], rows.diag[u], rows.corr[r, u]))
        change, j, rounding = best_partner(rows, r, u, least + np.float32(3.0) * margin[u])
        if change < best and change < -(LOSS_TOLERANCE * current + rounding):
            best, best_u, best_j = change, u, j
    if best_u >= 0:
        gain[best_u] = BLOCKED
    return best_u, best_j, gain.argmin()
