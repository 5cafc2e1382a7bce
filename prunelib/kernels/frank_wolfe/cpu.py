"""Frank-Wolfe steps on the CPU, compiled by numba: gradient, vertex and slope in one pass over each row.

Torch is as fast for curvatures and for groups that span rows. Of equal gradients the lower column is taken.
"""

from typing import NamedTuple

import numpy as np
import torch

from prunelib.kernels.cpu_common import compiled, in_chunks
from prunelib.kernels.frank_wolfe import reference as plain
from prunelib.kernels.frank_wolfe.reference import Direction, curvature

__all__ = ["curvature", "direction"]

_MAGNITUDE = np.int32(2**31 - 1)  # the bits of a float but its sign
_BEFORE_ALL = np.int32(-(2**31))
_RANKED = 16  # size of a group up to which comparing all pairs is faster than bisection


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
    """As :func:`prunelib.kernels.frank_wolfe.reference.direction`."""
    if weight.shape[1] % size:
        return plain.direction(weight, linear, residual, mass, fixed, size, keep, threads)
    slope = torch.empty(len(mass), dtype=torch.float64)
    found = Direction(toward=torch.empty_like(mass), pruned=torch.empty_like(mass), slope=slope)
    whole = _Rows(
        weight=weight.numpy(),
        linear=linear.numpy(),
        residual=residual.numpy(),
        mass=mass.numpy(),
        fixed=fixed.numpy(),
        toward=found.toward.numpy(),
        pruned=found.pruned.numpy(),
        slope=found.slope.numpy(),
    )

    def work(rows: slice) -> None:
        _direct(_Rows(**{name: array[rows] for name, array in whole._asdict().items()}), size, keep)

    for _ in in_chunks(work, len(mass), threads, -(-len(mass) // threads)):
        pass
    return found


class _Rows(NamedTuple):
    """Some rows: what their direction depends on, and the fields of :class:`Direction` to set.

    fixed is (rows, inputs) bool, slope (rows,) float64; all others are (rows, inputs) float32.
    """

    weight: np.ndarray
    linear: np.ndarray
    residual: np.ndarray
    mass: np.ndarray
    fixed: np.ndarray
    toward: np.ndarray
    pruned: np.ndarray
    slope: np.ndarray


@compiled
def _direct(rows, size, keep):
    """Set the direction of some rows."""
    weight, mass, fixed, toward = rows.weight, rows.mass, rows.fixed, rows.toward
    inputs = weight.shape[1]
    gradient, keys, least = np.empty(inputs, np.float32), np.empty(inputs, np.int32), np.empty(inputs, np.bool_)
    for r in range(len(weight)):
        _set_gradient(weight[r], rows.linear[r], rows.residual[r], mass[r], gradient)
        _order(gradient, fixed[r], keys)
        for start in range(0, inputs, size):
            group = slice(start, start + size)
            if size <= _RANKED:
                _rank(keys[group], keep, least[group])
            else:
                _mark_least(keys[group], keep, least[group])
        _set_vertex(gradient, fixed[r], least, toward[r])
        rows.slope[r] = _turn(gradient, weight[r], mass[r], toward[r], rows.pruned[r])


@compiled
def _set_gradient(w, linear, residual, m, gradient):
    one, two = np.float32(1.0), np.float32(2.0)
    for j in range(w.size):
        # + 0 turns -0 into +0: as integers the two would differ.
        gradient[j] = linear[j] * (one - two * m[j]) - two * w[j] * residual[j] + np.float32(0.0)


@compiled
def _order(gradient, fixed, keys):
    """Set integers in the order of the gradient, those of fixed entries below all others."""
    # The bits of floats have the order of the floats once the magnitude bits of negative ones are inverted.
    bits = gradient.view(np.int32)
    for j in range(keys.size):
        ordered = bits[j] ^ _MAGNITUDE if bits[j] < 0 else bits[j]
        keys[j] = _BEFORE_ALL if fixed[j] else ordered


@compiled
def _rank(keys, number, least):
    """Mark the ``number`` least keys of a small group, by comparing all pairs."""
    for i in range(keys.size):
        before = 0
        for j in range(keys.size):
            before += (keys[j] < keys[i]) | ((keys[j] == keys[i]) & (j < i))
        least[i] = before < number


@compiled
def _mark_least(keys, number, least):
    """Mark the ``number`` least keys: those below the last of them, and the first of those equal to it."""
    threshold = _threshold(keys, number)
    for j in range(keys.size):
        least[j] = keys[j] < threshold
        number -= least[j]
    for j in range(keys.size):
        if keys[j] == threshold:
            least[j] = number > 0
            number -= 1


@compiled
def _threshold(keys, count):
    """Find the least integer that at least ``count`` keys do not exceed."""
    # Bisection over the range of int32: its counts are SIMD loops, twice as fast as a partition.
    low, high = np.int64(_BEFORE_ALL), np.int64(_MAGNITUDE)
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
def _set_vertex(gradient, fixed, least, ones):
    for j in range(ones.size):
        ones[j] = np.float32(1.0) if (least[j] & (gradient[j] < 0)) | fixed[j] else np.float32(0.0)


@compiled
def _turn(gradient, w, m, toward, pruned):
    """Replace the vertex in ``toward`` by the direction to it, set pruned = w times that; return the slope."""
    slope = 0.0
    for j in range(w.size):
        d = toward[j] - m[j]
        toward[j], pruned[j] = d, d * w[j]
        slope -= np.float64(gradient[j] * d)
    return slope
