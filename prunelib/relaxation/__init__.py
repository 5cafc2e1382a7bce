"""The convex relaxation of the pruning problem: masks become masses m in [0, 1] with the same sum in each group.

problem.py      the relaxed loss, its gradient, the linear minimisation oracle, the dual gap and the certified bound
convexity.py    how much of G's diagonal can be made linear, which leaves the losses of masks as they are
frankwolfe.py   Frank-Wolfe steps, as in SparseFW
pairwise.py     relaxed swaps: the same optimum, sooner, and the path from it to a mask
"""
