"""Partial refit swaps: a swap re-estimates the restored weight alone, the others are re-estimated between sweeps.

For a row w, weights x that are 0 where pruned, and c = G (w - x), the best step of a kept weight i alone is c_i / G_ii.
To prune u and restore j, with the best value for j, changes the loss e^T G e, e = w - x, by

    dL(u, j) = 2 x_u c_u + x_u^2 G_uu - (c_j + x_u G_uj)^2 / G_jj        new x_j = (c_j + x_u G_uj) / G_jj

(the partial swaps of L0Learn, Hazimeh & Mazumder, arXiv 1803.01454, with a Gram matrix). A *sweep* evaluates all swaps,
visits each u that has one which improves, the best first, and makes its best swap under the current c. After it, each
kept weight in turn takes its best step, ``DESCENTS`` times. A row ends when a sweep finds no swap.

A backend has one function, a generator that yields ``(rows, results, x)`` as that of
:mod:`prunelib.kernels.refit_swaps`, and takes the weights to start from, (rows, inputs) float64::

    swap_to_optimum(weight, gram, mask, start, group, threads)       until no partial swap lowers the loss

A row is *optimal* when its last sweep found no swap.
"""
