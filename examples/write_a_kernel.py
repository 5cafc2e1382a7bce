"""A kernel of one's own: the formula, a plain reference that is its specification, and the compiled loop tested on it.

    python examples/write_a_kernel.py

The operation: with c = G p and p = (1 - m) * w, pruning one more weight u changes a row's error p^T G p by

    a_u = 2 w_u c_u + w_u^2 G_uu                                          infinity where u is pruned already

In the project the derivation is the docstring of prunelib/kernels/OPERATION/__init__.py, and the functions stand in its
reference.py and cpu.py under one name; `prunelib.kernels.backend` chooses between them by the device.

Prints:

    largest difference from the reference, relative: below 1e-12
    cheapest weight of the first row: 49
"""

import numba
import numpy as np
import torch

from prunelib import PerRow, gram_matrix, magnitude, select


def removal_costs(weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the costs (rows, inputs) float64 for weight and mask (rows, inputs), gram (inputs, inputs): reference."""
    w, g = weight.double(), gram.double()
    c = torch.where(mask, 0, w) @ g  # (rows, inputs)
    return torch.where(mask, 2 * w * c + w**2 * g.diagonal(), torch.inf)


@numba.njit(parallel=True)
def compiled(w: np.ndarray, g: np.ndarray, kept: np.ndarray, costs: np.ndarray) -> None:
    """Write the costs, (rows, inputs) float64; rows are independent, so that threads change no bit."""
    rows, inputs = w.shape
    for row in numba.prange(rows):
        for u in range(inputs):
            costs[row, u] = np.inf
            if kept[row, u]:
                c = 0.0
                for j in range(inputs):
                    if not kept[row, j]:  # p is 0 where a weight is kept
                        c += g[u, j] * w[row, j]
                costs[row, u] = 2 * w[row, u] * c + w[row, u] ** 2 * g[u, u]


torch.manual_seed(0)
weight, gram = torch.randn(64, 128), gram_matrix(torch.randn(1000, 128) @ torch.randn(128, 128))
mask = select(magnitude(weight, gram), PerRow(sparsity=0.5))

expected = removal_costs(weight, gram, mask)
found = torch.empty_like(expected)
compiled(weight.double().numpy(), gram.double().numpy(), mask.numpy(), found.numpy())

scale = expected[mask].abs().max()
assert torch.equal(found.isinf(), expected.isinf())
assert ((found - expected)[mask].abs() <= 1e-12 * scale).all()
print("largest difference from the reference, relative: below 1e-12")
print(f"cheapest weight of the first row: {int(found[0].argmin())}")
