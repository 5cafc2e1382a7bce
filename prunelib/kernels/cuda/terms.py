"""What the kernels of swaps and of refit swaps share."""

import triton
import triton.language as tl

from prunelib.kernels import interface

INFINITY = tl.constexpr(float("inf"))
FLOAT32_ROUNDING = tl.constexpr(interface.FLOAT32_ROUNDING)


@triton.jit
def prune_term(w, d, c):
    """What pruning a weight w adds to the loss, of a diagonal entry d and a correlation c."""
    return w * (w * d + 2.0 * c)
