"""1-swaps: prune one kept weight of a row and restore one pruned weight.

A row has weights w and a mask m; p = (1 - m) * w is its pruned part. With c = G p its loss is

    L = p^T G p = p^T c

To prune a kept u and restore a pruned j adds w_u to p_u and takes w_j from p_j. That changes the loss by

    dL(u, j) = a_u + b_j - 2 w_u w_j G_uj
    a_u = 2 w_u c_u + w_u^2 G_uu        prune u
    b_j = w_j^2 G_jj - 2 w_j c_j        restore j

    and then    c += w_u G[:, u] - w_j G[:, j]

(SparseSwaps, arXiv 2512.10922, section on 1-swaps). A row that no swap improves is at a *1-swap optimum*.

Backends
--------
A backend has two functions, as :mod:`prunelib.kernels.interface` describes them::

    swap_best(weight, gram, mask, group, max_swaps, threads)
    swap_to_optimum(weight, gram, mask, group, threads)

``swap_best`` is the paper's algorithm: a scan of all pairs (u, j) of a row, then the best swap, at most ``max_swaps``
times. Of equal swaps the one with the lowest u is made, of these the one with the lowest j.

``swap_to_optimum`` continues until no swap improves. Over whole rows the compiled backends make *sweeps*: a scan, then
each u that may improve is visited, the most promising first, and its best swap under the current c is made at once. So
one scan serves many swaps, made in another order than the paper's. Over wide rows the CPU backend scans and visits
block by block (:mod:`.cpu_wide`), in yet another order. Within groups all backends make best swaps, since
sweeps end at a higher loss there.

Bounded scans
-------------
Over whole rows a scan runs in float32, where SIMD units and GPUs are fast. It finds for each kept u, over the pruned j,

    gain_u = a_u + min_j (b_j - 2 w_u w_j G_uj)

Since |G_uj| <= sqrt(G_uu G_jj), the rounding error of gain_u is at most

    margin_u = FLOAT32_ROUNDING (|a_u| + max_j |b_j| + 2 |w_u| sqrt(G_uu) max_j |w_j| sqrt(G_jj))

so that no swap of a u with gain_u >= margin_u improves. The others are evaluated again in float64, which decides; the
swaps that are made are those of float64 arithmetic. The paper's best swap is among the u with
gain_u - margin_u <= min_v (gain_v + margin_v).

Of the scans over whole rows by compiled backends, only the first of sweeps on a GPU evaluates all pairs
(:mod:`.cuda_scan`). The others leave out each u for which a bound without pairs shows that no swap comes below a limit:

    dL(u, j) >= a_u + min_j b_j - 2 |w_u| reach_u max_j |w_j| sqrt(G_jj)
    reach_u = max_j |G_uj| / sqrt(G_jj) over all j but u

The limit is 0 in sweeps; for a best swap it is the least change that the scan has found so far, so that few u are left
(:mod:`.cpu_best`, :mod:`.cuda_best`). For best swaps, in sweeps over wide rows on a CPU, and in all sweeps over whole
rows on a GPU (:mod:`.cuda_sweeps`), the bound is then evaluated for each segment of columns, and only segments below
the limit are scanned. reach depends on G alone and is computed once for a layer; min_j b_j, max_j |b_j| and
max_j |w_j| sqrt(G_jj), over the pruned j, are updated with each swap.
"""
