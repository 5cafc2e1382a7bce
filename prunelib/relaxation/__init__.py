"""The convex relaxation of the pruning problem: masks become masses m in [0, 1] with the same sum in each group.

problem.py      the relaxed loss, its gradient, the linear minimisation oracle, the dual gap and the certified bound
convexity.py    the largest part of G's diagonal that can be made linear, which leaves the losses of masks unchanged
frankwolfe.py   Frank-Wolfe steps, as in SparseFW
pairwise.py     relaxed swaps: the same optimum in less time, and the path from it to a mask
"""
