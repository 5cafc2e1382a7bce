"""Scans of all pairs in float32: least[u] = min_j (b_j - 2 w_u w_j G_uj), the least change from pruning u less a_u.

A scan evaluates every pair (u, j) of its rows. It is bound by arithmetic: a multiplication, a fused multiply-add and a
minimum for a pair, 3.5 instructions with loop and loads included (counted in the machine code for sm_90). A tile of G
in registers is used for a block of rows. An infinite b_j marks a kept j, so that tiles stay regular. Of all (u, j),
kept u x pruned j are 24% at 60% sparsity; to gather these alone would take a load for every pair, at a quarter of the
rate of arithmetic or less.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import INFINITY


@triton.jit(do_not_specialize=["count"])
def scan_rows(
    weight, gram, restore, least, count,
    inputs: tl.constexpr, ROWS: tl.constexpr, KEPT: tl.constexpr, PRUNED: tl.constexpr,
):  # fmt: skip
    """Set least[r, u] for ROWS rows and KEPT columns u, over all j, PRUNED at a time. G is read as G[j, u]."""
    # (ROWS,) row indices, the last one again beyond it, and (KEPT,) columns u
    r = tl.minimum(tl.program_id(0) * ROWS + tl.arange(0, ROWS), count - 1).to(tl.int64)
    u = tl.program_id(1) * KEPT + tl.arange(0, KEPT)
    inside = (u < inputs)[None, :]
    here = (r * inputs)[:, None] + u[None, :]
    x = -2.0 * tl.load(weight + here, mask=inside, other=0.0)  # (ROWS, KEPT)
    found = tl.full((ROWS, KEPT), INFINITY, tl.float32)
    for start in tl.range(0, inputs, PRUNED, num_stages=2):
        j = start + tl.arange(0, PRUNED)
        within = (j < inputs)[:, None]
        there = (r * inputs)[None, :] + j[:, None]
        # int64, since j * inputs may exceed int32
        g = tl.load(
            gram + j.to(tl.int64)[:, None] * inputs + u[None, :], mask=within & inside, other=0.0
        )  # (PRUNED, KEPT)
        w = tl.load(weight + there, mask=within, other=0.0)  # (PRUNED, ROWS)
        b = tl.load(restore + there, mask=within, other=INFINITY)  # (PRUNED, ROWS)
        changes = b[:, :, None] + x[None, :, :] * (w[:, :, None] * g[:, None, :])  # (PRUNED, ROWS, KEPT)
        found = tl.minimum(found, tl.min(changes, axis=0))
    tl.store(least + here, found, mask=inside)
