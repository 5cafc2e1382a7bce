"""1-swaps: the best swap at a time, or swaps until none improves.

Equations: SparseSwaps (arXiv 2512.10922), section on 1-swaps; dL(u, j) in three terms.
"""
