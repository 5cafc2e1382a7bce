"""Frank-Wolfe steps, compiled: gradient, vertex and slope in one pass over each row.

Torch is as fast for all else: curvatures, and groups that are not a row. Of equal gradients the lower place is taken.
"""

import numpy as np
import torch

from prunelib.kernels.cpu.compiled import compiled, in_chunks
from prunelib.kernels.reference import frank_wolfe as plain
from prunelib.kernels.reference.frank_wolfe import Direction, curvature

__all__ = ["curvature", "direction"]

_MAGNITUDE = np.int32(2**31 - 1)  # the bits of a float but its sign


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
    if size != weight.shape[1]:
        return plain.direction(weight, linear, residual, mass, fixed, size, keep, threads)
    found = Direction(torch.empty_like(mass), torch.empty_like(mass), torch.empty(len(mass), dtype=torch.float64))
    given = [tensor.numpy() for tensor in (weight, linear, residual, mass, fixed)]
    taken = [tensor.numpy() for tensor in found]

    def work(rows: slice) -> None:
        _direct(*(array[rows] for array in given), keep, *(array[rows] for array in taken))

    for _ in in_chunks(work, len(mass), threads, -(-len(mass) // threads)):
        pass
    return found


@compiled
def _direct(weight, linear, residual, mass, fixed, keep, toward, pruned, slope):
    """Set the direction of some rows."""
    gradient = np.empty(weight.shape[1], np.float32)
    keys = np.empty(weight.shape[1], np.int32)
    for r in range(len(weight)):
        _set_gradient(weight[r], linear[r], residual[r], mass[r], gradient)
        free = _order(gradient, fixed[r], keep, keys)
        threshold = _threshold(keys, free)
        _leave(keys, threshold, free)
        _set_vertex(gradient, fixed[r], keys, threshold, toward[r])
        slope[r] = _turn(gradient, weight[r], mass[r], toward[r], pruned[r])


@compiled
def _set_gradient(w, linear, residual, m, gradient):
    one, two = np.float32(1.0), np.float32(2.0)
    for j in range(w.size):
        gradient[j] = linear[j] * (one - two * m[j]) - two * w[j] * residual[j]


@compiled
def _order(gradient, fixed, keep, keys):
    """Set integers in the order of the gradient, what is fixed last; return how much of the budget is free."""
    bits, free = gradient.view(np.int32), keep
    for j in range(keys.size):
        ordered = bits[j] ^ _MAGNITUDE if bits[j] < 0 else bits[j]
        keys[j] = _MAGNITUDE if fixed[j] else ordered
        free -= fixed[j]
    return free


@compiled
def _threshold(keys, count):
    """The least integer that at least so many keys do not exceed, by halving: faster than a partition, with SIMD."""
    low, high = np.int64(-(2**31)), np.int64(_MAGNITUDE)
    while low < high:
        middle = (low + high) >> 1
        limit, found = np.int32(middle), np.int32(0)
        for j in range(keys.size):
            found += np.int32(keys[j] <= limit)
        if found >= count:
            high = middle
        else:
            low = middle + 1
    return np.int32(low)


@compiled
def _leave(keys, threshold, number):
    """Of the keys at the threshold leave as many, from the first on, as the lower ones leave of a number."""
    for j in range(keys.size):
        number -= keys[j] < threshold
    for j in range(keys.size):
        if keys[j] == threshold:
            number -= 1
            keys[j] = threshold if number >= 0 else _MAGNITUDE


@compiled
def _set_vertex(gradient, fixed, keys, threshold, ones):
    for j in range(keys.size):
        taken = (keys[j] <= threshold) & (gradient[j] < 0)
        ones[j] = np.float32(1.0) if taken | fixed[j] else np.float32(0.0)


@compiled
def _turn(gradient, w, m, toward, pruned):
    """Make the vertex in ``toward`` the way there, set what it prunes, and return the slope along it."""
    slope = 0.0
    for j in range(w.size):
        d = toward[j] - m[j]
        toward[j], pruned[j] = d, d * w[j]
        slope -= np.float64(gradient[j] * d)
    return slope
