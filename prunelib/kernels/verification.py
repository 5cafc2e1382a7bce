"""Which rows are at a 1-swap optimum: the claim ``optimal`` of a refiner, decided in float64.

A kernel ends a row when its last scan finds no swap that improves. That scan may be in float32, where the changes of
small weights underflow beside a huge one, and its c = G p has the rounding errors of all updates. With
s_j = |w_j| sqrt(G_jj), s the largest of a row, S and T their sums over the row and over its pruned columns, a row is
called optimal only if no swap lowers its loss L by more than

    SHARE * L + ROUNDING_SHARE * inputs * T^2

The second term is what rounding leaves of a loss in which pruned weights cancel. By Cauchy-Schwarz the error of c_i is
at most eps (inputs + 5 swaps) S sqrt(G_ii), so that the last scan proves this for every row with

    4 s S (2 ROUNDING + eps (inputs + 5 swaps))  <  (SHARE - LOSS_TOLERANCE) L

which are nearly all. For the others c and all changes are computed anew.
"""

import torch

from prunelib.algebra.linalg import product
from prunelib.kernels.interface import LOSS_TOLERANCE, ROUNDING
from prunelib.kernels.scaling import Equilibrated
from prunelib.methods.contract import Refined

SHARE = 1e-6
ROUNDING_SHARE = 4e-15

_EPSILON = torch.finfo(torch.float64).eps / 2
_LARGEST_NORM = 2**0.5  # of an equilibrated input; no weight of a row is larger than 1
_STRIP = 128  # kept columns of a row whose changes are computed at once


def verified(scaled: Equilibrated, weight: torch.Tensor, found: Refined, group: int) -> torch.Tensor:
    """Return which of the rows that ``found`` calls optimal are: (rows,) bool, on the CPU.

    Parameters
    ----------
    scaled, weight
        The equilibrated problem of ``found``, whose losses are those of the layer, and the weight (rows, inputs) before
        it was equilibrated.
    group
        Swaps stay within ``group`` consecutive columns.
    """
    if found.optimal is None or found.swaps is None:
        raise TypeError("expected the results of a refiner that swaps")
    optimal = found.optimal.cpu().clone()
    losses = found.loss_after.cpu() / scaled.loss_scale.cpu()
    rows = (optimal & ~_proven_by_scan(scaled.weight, losses, found.swaps.cpu())).nonzero()[:, 0]
    if len(rows):
        here = rows.to(weight.device)
        part = scaled.weight[here]
        holds = _no_swap_improves(part, scaled.gram, found.mask[here], group)
        optimal[rows] = holds & ~_underflows(part, weight[here], scaled.gram).cpu()
    return optimal


def _proven_by_scan(weight: torch.Tensor, losses: torch.Tensor, swaps: torch.Tensor) -> torch.Tensor:
    """Return whether the last scan proves the claim, (rows,) bool, for an equilibrated weight (rows, inputs)."""
    sums = _LARGEST_NORM * weight.abs().sum(dim=1).double().cpu()
    error = 2 * ROUNDING + _EPSILON * (weight.shape[1] + 5 * swaps)
    return 4 * _LARGEST_NORM * sums * error < (SHARE - LOSS_TOLERANCE) * losses


def _underflows(scaled: torch.Tensor, weight: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Return whether equilibration lost digits of a weight beside one 10^38 times as large: (rows,) bool."""
    tiny = (scaled.abs() < torch.finfo(torch.float32).tiny) & (weight != 0)
    return (tiny & (gram.diagonal() > 0)).any(dim=1)


def _no_swap_improves(weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int) -> torch.Tensor:
    """Return whether the claim holds for some equilibrated rows, from their changes in float64: (rows,) bool."""
    w, diagonal = weight.double(), gram.diagonal().double()
    p, size = w.masked_fill(mask, 0), w.abs() * diagonal.sqrt()  # (rows, inputs): p and s_j
    c = product(p, gram)
    losses, pruned = (p * c).sum(dim=1).clamp(min=0), size.masked_fill(mask, 0).sum(dim=1)
    allowed = SHARE * losses + ROUNDING_SHARE * w.shape[1] * pruned**2
    holds = [
        allowed[r] >= losses[r]  # no loss is negative
        or _row_holds(w[r], gram, mask[r], c[r], size[r], pruned[r], allowed[r], group)
        for r in range(len(w))
    ]
    return torch.tensor(holds, dtype=torch.bool)


def _row_holds(
    w: torch.Tensor,
    gram: torch.Tensor,
    m: torch.Tensor,
    c: torch.Tensor,
    size: torch.Tensor,
    pruned: torch.Tensor,
    allowed: torch.Tensor,
    group: int,
) -> bool:
    """Return whether no change of a row (inputs,) is below -allowed, the rounding error of its computation included."""
    if not m.any():
        return True  # nothing is kept that could be pruned instead
    energy = w**2 * gram.diagonal().double()
    prune, restore = energy + 2 * w * c, energy - 2 * w * c
    columns = torch.arange(len(w), device=w.device)
    for u in columns[m].split(_STRIP):
        j = columns[~m & (columns // group >= u[0] // group) & (columns // group <= u[-1] // group)]
        change = prune[u, None] + restore[j] - 2 * w[u, None] * w[j] * gram[u[:, None], j].double()  # (u, j)
        sizes = size[u, None] + size[j]
        rounding = _EPSILON * (4 * len(w) + 16) * sizes * (pruned + sizes)
        elsewhere = u[:, None] // group != j // group
        if not ((change + allowed >= rounding) | elsewhere).all():  # a change that is NaN proves nothing
            return False
    return True
