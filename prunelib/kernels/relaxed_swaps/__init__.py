"""Relaxed swaps: move mass between two weights of a group, along an edge of the relaxed polytope.

Masses m in [0, 1] take the place of a mask (:mod:`prunelib.relaxation`). With p = (1 - m) * w, c = G p and a shift d,
the objective, its gradient and its curvature along one mass (half the second derivative) are

    f(m) = p^T (G - Diag(d)) p + sum_j d_j w_j^2 (1 - m_j)
    g_j  = d_j w_j^2 (1 - 2 m_j) - 2 w_j c_j
    e_j  = w_j^2 (G_jj - d_j)

A relaxed swap moves mass s from one weight of a group, the giver i, to another, the taker j. That changes f by

    -s (g_i - g_j) + s^2 (e_i + e_j - 2 w_i w_j G_ij)

    and then    c += s w_i G[:, i] - s w_j G[:, j]

s is that of the exact line search, at most m_i and 1 - m_j. A backend has one function, a generator that yields
``(rows, masses)``, masses (rows, inputs) float64, as slices of rows are finished::

    descend(operands, group, price, tolerance, rounds, threads)

The operands (:class:`.reference.Operands`): weight (rows, inputs) and gram (inputs, inputs) float32 are equilibrated.
Each row of shifts (stages, inputs) float64 is the d of an objective; rows of the layer minimise one objective after the
other. They start from mass (rows, inputs) float64. Weights that are fixed, (rows, inputs) bool, neither give nor take.
Groups are ``group`` consecutive columns. With a ``price``, groups also buy mass from outside and sell it there; without
(None), every group keeps the mass it has.

A *scan* finds a pair for each group: the giver with the largest gradient, and the taker with the largest drop of f for
that giver (Fan, Chen and Lin, JMLR 2005, for support vector machines). Of these pairs those are made, in the order of
their groups, whose drop is at least ``NEAR`` times the largest in the row. A *round* scans until ``inputs // PAIRS``
pairs are found, or until no pair has a drop. A row continues with the next objective after ``rounds`` rounds, or once
its dual gap is at most ``tolerance`` times its relaxed loss.
"""
