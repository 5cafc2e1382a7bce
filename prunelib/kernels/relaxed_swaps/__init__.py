"""Relaxed swaps: mass moves between two weights of a group, along an edge of the relaxed polytope.

Masses m in [0, 1] stand in for a mask (:mod:`prunelib.relaxation`). A relaxed swap moves mass from one weight of a
group, the giver, to another, the taker: a step along an edge of the polytope, as long as the exact line search says.
An engine is a module with one function, a generator that yields ``(rows, masses)`` as slices of rows are finished::

    descend(weight, gram, shifts, mass, fixed, group, price, tolerance, rounds, threads)

weight (rows, inputs) and gram (inputs, inputs) float32 are equilibrated. Each row of shifts (stages, inputs) float64 is
the d of an objective, f(m) = p^T (G - Diag(d)) p + sum_j d_j w_j^2 (1 - m_j) with p = (1 - m) * w; rows of the layer
descend on one after the other. mass (rows, inputs) float64 is where they start; what is fixed (rows, inputs) bool
neither gives nor takes; groups are ``group`` consecutive columns. With a ``price``, groups also buy mass from outside
and sell it there; without (None), every group keeps the mass it has.

A *scan* finds a pair for each group: the giver with the largest gradient, and the taker that promises the largest drop
with it (Fan, Chen and Lin, JMLR 2005, for support vector machines). Of these pairs those are made, in the order of
their groups, whose drop is at least ``NEAR`` times the largest in the row. A *round* scans until ``inputs // PAIRS``
pairs are found, or none that promises a drop. A row passes to the next objective after ``rounds`` rounds, or once its
dual gap is at most ``tolerance`` times its relaxed loss.
"""
