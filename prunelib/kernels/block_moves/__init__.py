"""Block moves: give a group of columns the best of all its patterns, with the rest of the row as it is.

A group is ``size`` consecutive columns of which ``keep`` are kept. A *move* takes it from its pattern to another: it
flips a set D of its columns, half of them kept and half pruned. With p = (1 - m) * w, c = G p and

    v_k = w_k for a kept, -w_k for a pruned column k        the change of p_k when k is flipped

a move changes the row's loss p^T G p by

    dL(D) = sum over k in D of  v_k (2 c_k + v_k G_kk)   +   sum over pairs k, l in D of  2 v_k v_l G_kl

    and then    c += v_k G[:, k]    for each k in D

The moves of two columns are the 1-swaps of the group (:mod:`prunelib.kernels.swaps`), so a row that no move improves is
at a 1-swap optimum too.

A backend has one function, as :mod:`prunelib.kernels.interface` describes it, with ``groups``
(:class:`prunelib.masks.patterns.Groups`) instead of ``group``::

    move_to_optimum(weight, gram, mask, groups, threads)

A *sweep* visits the groups of a row from left to right and makes the best move of each that improves the row. A row
ends when a sweep that begins with a c computed anew makes no move. In its results ``swaps`` counts the groups changed
and ``sweeps`` the visits to all groups.
"""
