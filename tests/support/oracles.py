"""Brute force in float64, written from the definitions and slow on purpose: what the library must agree with."""

from itertools import combinations, product

import numpy as np


def loss(w, G, m):
    """p^T G p of one row."""
    p = np.where(m, 0.0, np.asarray(w, np.float64))
    return float(p @ np.asarray(G, np.float64) @ p)


def losses(W, G, M):
    return np.array([loss(w, G, m) for w, m in zip(W, M, strict=True)])


def swap_pairs(m, group):
    """All (u, j) with u kept and j pruned in the same group."""
    return [(u, j) for u, j in product(range(len(m)), repeat=2) if m[u] and not m[j] and u // group == j // group]


def swapped(m, u, j):
    after = np.array(m)
    after[u], after[j] = False, True
    return after


def swap_change(w, G, m, u, j):
    """The change of the loss by a swap, from the losses themselves."""
    return loss(w, G, swapped(m, u, j)) - loss(w, G, m)


def best_swap(w, G, m, group):
    """(change, u, j) of the best swap, or None where no pair exists."""
    changes = [(swap_change(w, G, m, u, j), u, j) for u, j in swap_pairs(m, group)]
    return min(changes, default=None)


def best_swaps(w, G, m, group, max_swaps):
    """The papers' algorithm on one row: best improvement, at most max_swaps times."""
    m = np.array(m)
    for _ in range(max_swaps):
        best = best_swap(w, G, m, group)
        if best is None or best[0] >= -1e-9 * loss(w, G, m):
            break
        m = swapped(m, *best[1:])
    return m


def is_swap_optimal(w, G, m, group, tolerance=1e-9):
    """No swap lowers the loss by more than a tolerance relative to the size of the terms."""
    best = best_swap(w, G, m, group)
    p = np.asarray(w, np.float64)
    scale = float(np.sum(p**2 * np.diag(G)))
    return best is None or best[0] >= -tolerance * max(loss(w, G, m), 1e-3 * scale)


def block_masks(m, start, groups):
    """The mask of a row with each of the patterns that one of its groups may have."""
    for kept in combinations(range(start, start + groups.size), groups.keep):
        after = np.array(m)
        after[start : start + groups.size] = False
        after[list(kept)] = True
        yield after


def is_block_optimal(w, G, m, groups, tolerance=1e-9):
    """No pattern of any one group lowers the loss by more than a tolerance relative to the size of the terms."""
    starts = range(0, len(m), groups.size)
    least = min(loss(w, G, after) for start in starts for after in block_masks(m, start, groups))
    before, scale = loss(w, G, m), float(np.sum(np.asarray(w, np.float64) ** 2 * np.diag(G)))
    return least - before >= -tolerance * max(before, 1e-3 * scale)


def updated_loss(w, G, x):
    """(w - x)^T G (w - x) of one row with weights x."""
    return float((w - x) @ G @ (w - x))


def refit_swapped(w, G, x, u, j):
    """x with u pruned and j restored at its best value, all others held."""
    after = np.array(x)
    after[u] = 0.0
    after[j] = (G[j] @ (w - after)) / G[j, j]
    return after


def least_refit_change(w, G, x, m, group):
    """The change of the loss by the best such swap, 0 where there is none."""
    afters = [refit_swapped(w, G, x, u, j) for u, j in swap_pairs(m, group)]
    return min((updated_loss(w, G, after) for after in afters), default=updated_loss(w, G, x)) - updated_loss(w, G, x)


def global_optimum(w, G, group, keep):
    """The least loss over all masks of the pattern, by enumeration."""
    inputs = len(w)
    masks = (np.array(bits, bool) for bits in product([False, True], repeat=inputs))
    fitting = (m for m in masks if all(m[s : s + group].sum() == keep for s in range(0, inputs, group)))
    return min(loss(w, G, m) for m in fitting)


def select(scores, group, keep):
    """Keep the highest scores of each ``group`` consecutive ones, row after row; ties to the lower column."""
    groups = np.asarray(scores).reshape(-1, group)
    mask = np.zeros(groups.shape, bool)
    for kept, values in zip(mask, groups, strict=True):
        kept[sorted(range(group), key=lambda c: (-values[c], c))[:keep]] = True
    return mask.reshape(np.shape(scores))


def gram(inputs):
    """Sum over tokens of x x^T."""
    return sum(np.outer(x, x) for x in np.asarray(inputs, np.float64))
