"""Frank-Wolfe steps, compiled: gradient, vertex and sums in one pass over each row.

Where groups span rows, the plain engine does it. Of equal gradients the lower place is taken.
"""

import numpy as np
import torch

from prunelib.kernels.cpu.compiled import BLOCKED, compiled, in_chunks
from prunelib.kernels.reference import frank_wolfe as plain
from prunelib.kernels.reference.frank_wolfe import Direction

_FEW = 16  # so few are ranked by comparing all pairs


def direction(
    weight: torch.Tensor,
    linear: torch.Tensor,
    residual: torch.Tensor,
    mass: torch.Tensor,
    fixed: torch.Tensor,
    size: int,
    keep: int,
    threads: int,
) -> Direction:
    """As :func:`prunelib.kernels.reference.frank_wolfe.direction`."""
    if size > weight.shape[1]:
        return plain.direction(weight, linear, residual, mass, fixed, size, keep, threads)
    found = Direction(torch.empty_like(mass), torch.empty_like(mass), torch.empty(len(mass), dtype=torch.float64))
    given = [tensor.numpy() for tensor in (weight, linear, residual, mass, fixed)]
    taken = [tensor.numpy() for tensor in found]

    def work(rows: slice) -> None:
        _direct(*(array[rows] for array in given), size, keep, *(array[rows] for array in taken))

    for _ in in_chunks(work, len(mass), threads):
        pass
    return found


def curvature(
    weight: torch.Tensor, linear: torch.Tensor, toward: torch.Tensor, change: torch.Tensor, threads: int
) -> torch.Tensor:
    """As :func:`prunelib.kernels.reference.frank_wolfe.curvature`."""
    found = torch.empty(len(weight), dtype=torch.float64)
    given = [tensor.numpy() for tensor in (weight, linear, toward, change)]

    def work(rows: slice) -> None:
        _bend(*(array[rows] for array in given), found.numpy()[rows])

    for _ in in_chunks(work, len(weight), threads):
        pass
    return found


@compiled
def _direct(weight, linear, residual, mass, fixed, size, keep, toward, pruned, slope):
    """Set the direction of some rows; the gradient stands in ``pruned`` first."""
    two = np.float32(2.0)
    for r in range(len(weight)):
        gradient = pruned[r]
        for j in range(gradient.size):
            gradient[j] = linear[r, j] * (np.float32(1.0) - two * mass[r, j]) - two * weight[r, j] * residual[r, j]
        for low in range(0, gradient.size, size):
            places = slice(low, low + size)
            _choose(gradient[places], fixed[r, places], keep, toward[r, places])
        total = 0.0
        for j in range(gradient.size):
            toward[r, j] -= mass[r, j]
            total -= np.float64(gradient[j] * toward[r, j])
            pruned[r, j] = toward[r, j] * weight[r, j]
        slope[r] = total


@compiled
def _choose(gradient, fixed, keep, ones):
    """Set a group's vertex: what is fixed, and of the rest the most negative entries that the budget has left."""
    free = keep
    for j in range(gradient.size):
        free -= fixed[j]
    if gradient.size <= _FEW:
        _choose_by_rank(gradient, fixed, free, ones)
    else:
        _choose_by_threshold(gradient, fixed, free, ones)


@compiled
def _choose_by_rank(gradient, fixed, free, ones):
    for j in range(gradient.size):
        before = 0
        for i in range(gradient.size):
            less = gradient[i] < gradient[j] or (gradient[i] == gradient[j] and i < j)
            before += less and not fixed[i]
        ones[j] = fixed[j] or (before < free and gradient[j] < 0)


@compiled
def _choose_by_threshold(gradient, fixed, free, ones):
    for j in range(gradient.size):
        ones[j] = np.float32(BLOCKED) if fixed[j] else gradient[j]
    threshold, ties = np.float32(-BLOCKED), free
    if free > 0:
        threshold = np.partition(ones, free - 1)[free - 1]
        for j in range(gradient.size):
            ties -= ones[j] < threshold
    for j in range(gradient.size):
        taken = ones[j] < threshold
        if ones[j] == threshold and ties > 0:
            taken = True
            ties -= 1
        ones[j] = fixed[j] or (taken and gradient[j] < 0)


@compiled
def _bend(weight, linear, toward, change, found):
    """Set <D, w * change - linear * D> of some rows."""
    for r in range(len(weight)):
        total = 0.0
        for j in range(weight.shape[1]):
            d = toward[r, j]
            total += np.float64(d * (weight[r, j] * change[r, j] - linear[r, j] * d))
        found[r] = total
