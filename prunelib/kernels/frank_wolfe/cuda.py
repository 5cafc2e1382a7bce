"""Frank-Wolfe steps on a GPU: all but the matrix product, in one pass over each row.

Groups that span rows are left to the reference. Of equal gradients the lower column is taken.
"""

import torch

from prunelib.kernels.cuda_chunks import row_block
from prunelib.kernels.frank_wolfe import cuda_kernels as frank_wolfe_kernels
from prunelib.kernels.frank_wolfe import reference as plain
from prunelib.kernels.frank_wolfe.reference import Direction


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
    rows, inputs = weight.shape
    if size > inputs:
        return plain.direction(weight, linear, residual, mass, fixed, size, keep, threads)
    slope = torch.empty(rows, dtype=torch.float64, device=mass.device)
    found = Direction(toward=torch.empty_like(mass), pruned=torch.empty_like(mass), slope=slope)
    operands = {
        "weight": weight,
        "linear": linear,
        "residual": residual,
        "mass": mass,
        "fixed": fixed,
        **found._asdict(),
        "keep": keep,
        "inputs": inputs,
    }
    with torch.cuda.device_of(weight):
        if size == inputs:
            frank_wolfe_kernels.direct_rows[(rows,)](**operands, **row_block(inputs))
        else:
            frank_wolfe_kernels.direct_groups[(rows,)](**operands, group=size, **row_block(inputs))
    return found


def curvature(
    weight: torch.Tensor, linear: torch.Tensor, toward: torch.Tensor, change: torch.Tensor, threads: int
) -> torch.Tensor:
    """As :func:`prunelib.kernels.frank_wolfe.reference.curvature`."""
    del threads  # of the CPU
    rows, inputs = weight.shape
    found = torch.empty(rows, dtype=torch.float64, device=weight.device)
    with torch.cuda.device_of(weight):
        frank_wolfe_kernels.bend[(rows,)](
            weight=weight,
            linear=linear,
            toward=toward,
            change=change,
            found=found,
            inputs=inputs,
            **row_block(inputs),
        )
    return found
