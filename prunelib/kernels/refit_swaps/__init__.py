"""Refit swaps: the exact change of the least-squares loss by every swap, with all kept weights re-estimated.

For a row w with kept columns S and pruned columns P, H = G_SS^-1, least-squares weights x = H (G w)_S and
r = G (w - x), to prune u and restore j changes the least-squares loss e^T G e, e = w - x, by

    dL(u, j) = x_u^2 / H_uu - (r_j + A_ju x_u / H_uu)^2 / (D_j + A_ju^2 / H_uu)

    A = G_PS H                     coefficients of the kept columns that approximate each pruned one
    D = diag(G_PP - A G_SP)        squared norm of the part of each pruned column that no kept one explains

The first term is the cost of pruning u alone, Optimal Brain Surgeon's (Hassibi & Stork, 1993); the second is what
restoring j then gains, from the Schur complement of j. A backend has one function, a generator that yields
``(rows, results, x)``::

    swap_to_optimum(weight, gram, mask, group, threads)       until no swap lowers the least-squares loss

weight (rows, inputs) float64 and gram (inputs, inputs) float32 are standardised
(:func:`prunelib.refiners.refit_swaps.standardise`); ``x`` is (rows, inputs) float64, 0 where pruned, and the losses of
``results`` are those of least squares on the mask that came in and on the one that goes out.

What ``optimal`` says
---------------------
The standardised Gram matrix is G plus a ridge l on its diagonal, so that losses F_l of swaps are well defined. A row is
called optimal only if no swap lowers the loss on G itself, F_0, by more than BOUND l |w|^2, its kept weights being
re-estimated on G. With e' = w - x' of the mask S' after a swap, on the ridge problem, and m the least eigenvalue of the
kept part of G + l I, the normal equations give

    F_0(S') >= F_l(S') - l |e'|^2 (1 + l / (m - l))

1/m is at most the trace of the inverse after j is restored, trace(H) + (1 + |A_j|^2) / D_j, and |e'| at most |e| plus
the lengths of the two changes of x, to prune u and then to restore j:

    |x_u / H_uu| |H_u|   and   |x'_j| (1 + |A_j| + |A_ju / H_uu| |H_u|)

Where the trace is above 1 / (2 l), for a nearly singular kept part, nothing is proven, unless the loss itself is within
the bound.
"""
