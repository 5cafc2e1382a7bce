"""Prune one matrix: a warm start, the refinement of its mask, and what each costs in output error.

    python examples/prune_a_layer.py

Prints:

    2:4: error 4.338e+06 by Wanda, 2.562e+06 after 3,538 swaps
    128 of 128 rows are at a 1-swap optimum
"""

import torch

from prunelib import gram_matrix, parse_pattern, pruning_error, select, sparseswaps, wanda

torch.manual_seed(0)
layer = torch.nn.Linear(256, 128)
inputs = torch.randn(2000, 256) @ torch.randn(256, 256)  # (tokens, inputs), correlated as in a model

pattern = parse_pattern("2:4")
gram = gram_matrix(inputs)
mask = select(wanda(layer.weight, gram), pattern)
refined = sparseswaps(layer.weight, gram, mask, pattern)

before, after = (float(pruning_error(layer.weight, gram, each)) for each in (mask, refined.mask))
print(f"{pattern.label}: error {before:.4g} by Wanda, {after:.4g} after {int(refined.swaps.sum()):,} swaps")
print(f"{int(refined.optimal.sum())} of {len(mask)} rows are at a 1-swap optimum")

with torch.no_grad():
    layer.weight[~refined.mask] = 0.0
