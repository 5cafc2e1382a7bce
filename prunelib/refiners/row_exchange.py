"""1-swaps within rows and exchanges between rows, for patterns that count over the whole matrix.

Given their masks, rows are independent. Pruning u in row r and restoring j in another row s changes the total loss by

    a_u(r) + b_j(s)   with   a_u = 2 w_u c_u + w_u^2 G_uu,   b_j = -2 w_j c_j + w_j^2 G_jj,   c = G p of that row

without the interaction term of a swap (arXiv 2512.10922), so that the best exchange pairs the least a with the least b.
Since rows are independent, each round makes many exchanges at once: the best one, and others between distinct rows.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from prunelib.algebra.linalg import product
from prunelib.algebra.objective import checked_layer, row_losses
from prunelib.errors import PatternError
from prunelib.kernels import backend
from prunelib.kernels.interface import LOSS_TOLERANCE, ROUNDING
from prunelib.kernels.results import collect_rows
from prunelib.kernels.scaling import Equilibrated, equilibrate
from prunelib.kernels.verification import verified
from prunelib.masks.checks import check_mask
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import (
    NOTHING_ELSE,
    ExtraInputs,
    MethodSettings,
    Progress,
    Refined,
    Refiner,
    silent,
)
from prunelib.methods.workspace import Workspace
from prunelib.runtime.compute import AUTO, Compute


class RowExchange(MethodSettings):
    """No settings besides the method's name."""

    method: Literal["row_exchange"] = "row_exchange"


_DEFAULT = RowExchange()


def row_exchange(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: RowExchange = _DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Alternate swaps within rows and exchanges between rows, each to its optimum, until neither improves.

    Arguments and errors: :class:`prunelib.methods.contract.Refine`.

    Returns
    -------
    Refined
        The sum of the losses falls; that of a row may rise. ``swaps`` counts the swaps within a row and the weights it
        gave to other rows; ``optimal``: no swap within the row and no exchange between any two rows improves.
    """
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    if not pattern.spans_rows:
        raise PatternError(f"row_exchange: pattern {pattern.label}, expected one per layer")
    refined = mask.clone()
    scaled = equilibrate(weight, gram)
    swaps, sweeps, optimal = _alternate(scaled, refined, compute)
    before, after = (row_losses(weight, gram, m).cpu() for m in (mask, refined))
    progress(len(mask), float(before.sum()), float(after.sum()))
    found = Refined(refined, before, after, swaps=swaps, sweeps=sweeps, optimal=optimal)
    return replace(found, optimal=verified(scaled, weight, found, weight.shape[1]))


METHOD = Refiner(
    settings=RowExchange,
    refine=row_exchange,
    summary=(
        "1-swaps within rows and exchanges between rows, in turn, until neither lowers the error of the whole matrix; "
        "the error of a single row may rise"
    ),
    supports=lambda pattern: pattern.spans_rows,
    limits="with a fixed count per row or group, rows cannot exchange weights",
    workspace=Workspace(squares=5, weight_bytes=72),
)


def _alternate(
    scaled: Equilibrated, mask: torch.Tensor, compute: Compute
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Swap and exchange in turn, changing the mask (rows, inputs); return swaps, sweeps and optimal of each row."""
    swap_to_optimum = backend(mask.device, "swaps", compute).swap_to_optimum
    swaps, sweeps = torch.zeros((2, len(mask)), dtype=torch.int64)
    optimal = torch.zeros(len(mask), dtype=torch.bool)
    changed = torch.arange(len(mask))
    while len(changed):
        masks = mask[changed]
        found = swap_to_optimum(scaled.weight[changed], scaled.gram, masks, mask.shape[1], compute.workers)
        swapped = collect_rows(found, masks)
        mask[changed] = swapped.mask.to(mask.device)
        swaps[changed] += swapped.swaps
        sweeps[changed] += swapped.sweeps
        optimal[changed] = swapped.optimal
        before = mask.clone()
        swaps += _exchange(scaled, mask)
        changed = (mask != before).any(dim=1).nonzero()[:, 0].cpu()
    return swaps, sweeps, optimal


class _Least(NamedTuple):
    """The least a and b of each row (rows,), rounding tolerance included, and their columns u and j (rows,)."""

    a: torch.Tensor
    u: torch.Tensor
    b: torch.Tensor
    j: torch.Tensor


def _exchange(scaled: Equilibrated, mask: torch.Tensor) -> torch.Tensor:
    """Exchange kept weights between rows until none improves, in place; return how many each row gave to others."""
    w, G = scaled.weight, scaled.gram
    c = product((w * ~mask).double(), G.double())
    given = torch.zeros(len(mask), dtype=torch.int64)
    least = _least(scaled, mask, c, slice(None))
    while len((pairs := _pairs(least.a, least.b))[0]):
        r, s = pairs
        u, j = least.u[r], least.j[s]
        mask[r, u], mask[s, j] = False, True
        c[r] += w[r, u].double()[:, None] * G[u]
        c[s] -= w[s, j].double()[:, None] * G[j]
        given[r.cpu()] += 1
        both = torch.cat(pairs)
        for known, new in zip(least, _least(scaled, mask, c, both), strict=True):
            known[both] = new
    return given


def _least(scaled: Equilibrated, mask: torch.Tensor, c: torch.Tensor, rows: torch.Tensor | slice) -> _Least:
    """Return the least a and b of some rows in the loss units of the layer; infinite where a row has none.

    Each includes its share of the tolerance of :mod:`prunelib.kernels.interface`: an exchange improves if a + b < 0.
    """
    w, m, c = scaled.weight[rows].double(), mask[rows], c[rows]
    energy, correlation = w**2 * scaled.gram.diagonal(), 2 * w * c
    tolerance = LOSS_TOLERANCE * (w * c).masked_fill(m, 0).sum(dim=1).clamp(min=0)

    def least(changes: torch.Tensor, impossible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        change, column = (changes + ROUNDING * changes.abs()).masked_fill(impossible, torch.inf).min(dim=1)
        return (change + tolerance) * scaled.loss_scale[rows], column

    return _Least(*least(energy + correlation, ~m), *least(energy - correlation, m))


def _pairs(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return distinct rows r, s (pairs,) with a_r + b_s < 0, the best pair first; a and b are (rows,).

    A row gives a weight if it ranks better among the a than among the b, otherwise it takes one, except in the best
    pair.
    """
    by_a, by_b = a.argsort(stable=True), b.argsort(stable=True)
    gives = by_a.argsort() < by_b.argsort()
    firsts = [(r, s) for r in by_a[:2] for s in by_b[:2] if r != s]
    if firsts:
        r, s = min(firsts, key=lambda pair: float(a[pair[0]] + b[pair[1]]))
        gives[r], gives[s] = True, False
    givers, takers = by_a[gives[by_a]], by_b[~gives[by_b]]
    count = min(len(givers), len(takers))
    improves = a[givers[:count]] + b[takers[:count]] < 0
    return givers[:count][improves], takers[:count][improves]
