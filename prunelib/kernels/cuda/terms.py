"""What kernels share: constants, a term of the loss, and floats as integers in their order."""

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
