"""Frank-Wolfe steps on a GPU: what stands around the product, in one pass over each row.

Where groups span rows, the plain engine does it. Of equal gradients the lower place is taken.
"""

import torch
import triton

from prunelib.kernels.cuda import frank_wolfe_kernels
from prunelib.kernels.reference import frank_wolfe as plain
from prunelib.kernels.reference.frank_wolfe import Direction

_COLUMNS_PER_WARP = 512


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
    rows, inputs = weight.shape
    if size > inputs:
        return plain.direction(weight, linear, residual, mass, fixed, size, keep, threads)
    slope = torch.empty(rows, dtype=torch.float64, device=mass.device)
    found = Direction(torch.empty_like(mass), torch.empty_like(mass), slope)
    operands = (weight, linear, residual, mass, fixed, *found, keep, inputs)
    with torch.cuda.device_of(weight):
        if size == inputs:
            frank_wolfe_kernels.direct_rows[(rows,)](*operands, **_row(inputs))
        else:
            frank_wolfe_kernels.direct_groups[(rows,)](*operands, size, **_row(inputs))
    return found


def curvature(
    weight: torch.Tensor, linear: torch.Tensor, toward: torch.Tensor, change: torch.Tensor, threads: int
) -> torch.Tensor:
    """As :func:`prunelib.kernels.reference.frank_wolfe.curvature`."""
    del threads  # of the processor
    rows, inputs = weight.shape
    found = torch.empty(rows, dtype=torch.float64, device=weight.device)
    with torch.cuda.device_of(weight):
        frank_wolfe_kernels.bend[(rows,)](weight, linear, toward, change, found, inputs, **_row(inputs))
    return found


def _row(inputs: int) -> dict[str, int]:
    """How a program holds a row."""
    block = triton.next_power_of_2(inputs)
    return {"BLOCK": block, "num_warps": min(16, max(1, block // _COLUMNS_PER_WARP))}
