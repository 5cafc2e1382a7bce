"""What kernels share: constants, a term of the loss, and the lowest of a row's floats without a sort.

Floats keep their order as integers once the magnitude bits of negative ones are turned around, and 32 halvings of the
integers' range find the one that so many entries do not exceed.

A constant stands on the right of a product with a tensor. On the left, Triton's interpreter makes a ``constexpr`` of
the product, and since Triton 3.7 a comparison refuses a ``constexpr`` that holds a tensor.
"""

import triton
import triton.language as tl

from prunelib.kernels import interface

INFINITY = tl.constexpr(float("inf"))
FLOAT32_ROUNDING = tl.constexpr(interface.FLOAT32_ROUNDING)
LOWEST = tl.constexpr(-(2**31))
HIGHEST = tl.constexpr(2**31 - 1)


@triton.jit
def prune_term(w, d, c):
    """What pruning a weight w adds to the loss, of a diagonal entry d and a correlation c."""
    return w * (w * d + 2.0 * c)


@triton.jit
def ordered(values):
    """Integers in the order of floats; -0 counts as 0."""
    bits = (values + 0.0).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ HIGHEST, bits)


@triton.jit
def thresholds(keys, counts):
    """For each row of keys the least integer that at least ``counts`` of them do not exceed; the least of all for none.

    keys is (rows, n) in the range of int32, counts (rows,).
    """
    low = tl.zeros_like(counts).to(tl.int64) + LOWEST
    high = tl.zeros_like(counts).to(tl.int64) + HIGHEST
    for _ in range(32):
        middle = (low + high) >> 1
        enough = tl.sum((keys <= middle[:, None]).to(tl.int32), 1) >= counts
        high = tl.where(enough, middle, high)
        low = tl.where(enough | (low >= high), low, middle + 1)
    return low
