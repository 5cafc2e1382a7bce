"""Frank-Wolfe steps in plain torch, the specification of the compiled backends."""

from typing import NamedTuple

import torch


class Direction(NamedTuple):
    """The direction from the masses m to the vertex v with the least <gradient, v>.

    ``toward`` is v - m and ``pruned`` is w (v - m), both (rows, inputs) float32; ``slope`` is -<g, v - m> of each row,
    (rows,) float64.
    """

    toward: torch.Tensor
    pruned: torch.Tensor
    slope: torch.Tensor


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
    """Compute the direction from the masses to the best vertex."""
    del threads  # torch has its own
    gradient = linear * (1 - 2 * mass) - 2 * weight * residual
    toward = vertex(gradient, fixed, size, keep) - mass
    slope = -(gradient * toward).sum(dim=1, dtype=torch.float64)
    return Direction(toward=toward, pruned=toward * weight, slope=slope)


def curvature(
    weight: torch.Tensor, linear: torch.Tensor, toward: torch.Tensor, change: torch.Tensor, threads: int
) -> torch.Tensor:
    """Compute each row's curvature along D = toward: <D, w * change - linear * D>, with change = (w * D) G."""
    del threads  # torch has its own
    return (toward * (weight * change - linear * toward)).sum(dim=1, dtype=torch.float64)


def vertex(gradient: torch.Tensor, fixed: torch.Tensor, size: int, keep: int) -> torch.Tensor:
    """Solve argmin <gradient, v> over the polytope, the linear minimisation oracle; v is like the gradient.

    Ones at the ``keep`` most negative entries of each group, only where negative; fixed entries are taken first.
    """
    groups = gradient.masked_fill(fixed, -torch.inf).reshape(-1, size)  # (groups, size)
    least = groups.topk(keep, dim=1, largest=False, sorted=False)
    ones = torch.zeros_like(groups).scatter_(1, least.indices, (least.values < 0).to(groups))
    return ones.reshape(gradient.shape)
