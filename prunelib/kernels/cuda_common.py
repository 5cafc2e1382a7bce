"""Shared by the Triton kernels: constants, a term of the loss, and the k lowest floats of a row without a sort.

The bits of floats, read as integers, have the order of the floats once the magnitude bits of negative ones are
inverted. The k-th lowest is then found by bisection: 32 halvings of the range of int32.

A constant is the right factor of a product with a tensor. With the constant as the left one, Triton's interpreter makes
a ``constexpr`` of the product, and since Triton 3.7 a comparison rejects a ``constexpr`` whose value is a tensor.
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
    """Compute a_u, the change of the loss when a weight w alone is pruned; d is G_uu and c is c_u."""
    return w * (w * d + 2.0 * c)


@triton.jit
def ordered(values):
    """Map floats to integers of the same order; -0 counts as 0."""
    # -0 + 0 is +0, so that equal floats become equal integers.
    bits = (values + 0.0).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ HIGHEST, bits)


@triton.jit
def thresholds(keys, counts):
    """Find for each row the least integer that at least ``counts`` of its keys do not exceed; for 0, the least of all.

    keys is (rows, n) in the range of int32, counts (rows,).
    """
    # int64, since the sum of the two ends overflows int32.
    low = tl.zeros_like(counts).to(tl.int64) + LOWEST
    high = tl.zeros_like(counts).to(tl.int64) + HIGHEST
    for _ in range(32):
        middle = (low + high) >> 1  # (rows,)
        enough = tl.sum((keys <= middle[:, None]).to(tl.int32), 1) >= counts
        high = tl.where(enough, middle, high)
        low = tl.where(enough | (low >= high), low, middle + 1)
    return low
