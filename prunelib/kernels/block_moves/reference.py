"""Block moves in plain torch, the specification of the compiled backends: every pattern of a group is evaluated."""

from collections.abc import Iterator
from itertools import combinations

import torch

from prunelib.algebra.objective import row_losses
from prunelib.kernels.interface import LOSS_TOLERANCE, MAX_SWEEPS, ROUNDING, RowResults
from prunelib.masks.patterns import Groups

_CHUNK_BYTES = 128 * 1024 * 1024  # of one float64 value for each pair of columns, of each pattern and row of a chunk


def move_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, groups: Groups, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Give each group of each row in turn its best pattern, until none improves; see the package."""
    del threads  # torch has its own
    patterns = _patterns(groups).to(weight.device)
    chunk = max(1, _CHUNK_BYTES // (8 * len(patterns) * groups.size**2))
    for start in range(0, len(mask), chunk):
        rows = slice(start, min(start + chunk, len(mask)))
        yield rows, _sweep(weight[rows].double(), gram.double(), mask[rows].clone(), patterns)


def _patterns(groups: Groups) -> torch.Tensor:
    """List all masks of a group, (patterns, size) bool."""
    kept = torch.tensor(list(combinations(range(groups.size), groups.keep)))
    return torch.zeros(len(kept), groups.size, dtype=torch.bool).scatter_(1, kept, value=True)


def _sweep(w: torch.Tensor, G: torch.Tensor, m: torch.Tensor, patterns: torch.Tensor) -> RowResults:
    """Visit the groups of some rows from left to right, again and again; changes m (rows, inputs)."""
    moves, sweeps = torch.zeros((2, len(w)), dtype=torch.int64, device=w.device)
    loss_before = row_losses(w, G, m)
    optimal = torch.zeros_like(loss_before, dtype=torch.bool)
    while (active := ~optimal & (sweeps < MAX_SWEEPS)).any():
        loss, made = row_losses(w, G, m), torch.zeros_like(moves)
        for start in range(0, w.shape[1], patterns.shape[1]):
            group = slice(start, start + patterns.shape[1])
            change, rounding = pattern_changes(w, G, m, group, patterns)
            best = change.argmin(dim=1, keepdim=True)
            gain = change.gather(1, best)[:, 0]
            improves = active & (gain < -(LOSS_TOLERANCE * loss + rounding.gather(1, best)[:, 0]))
            m[improves, group] = patterns[best[improves, 0]]
            loss = (loss + gain.where(improves, 0)).clamp(min=0)
            made += improves
        moves += made
        sweeps += active
        optimal |= active & (made == 0)
    losses = row_losses(w, G, m)
    return RowResults(
        mask=m, swaps=moves, sweeps=sweeps, loss_before=loss_before, loss_after=losses, optimal=optimal
    ).cpu()


def pattern_changes(
    w: torch.Tensor, G: torch.Tensor, m: torch.Tensor, group: slice, patterns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the change of each row's loss by each pattern of a group of columns, and the bound of its rounding error.

    With d the change of p in the group: 2 d^T c + d^T G d, for c = G p; (rows, patterns) float64 each.
    """
    c = (w * ~m) @ G[:, group]  # (rows, size)
    d = (m[:, None, group].double() - patterns.double()) * w[:, None, group]  # (rows, patterns, size)
    energies = G[group, group].diagonal()
    alone = d * (2 * c[:, None] + d * energies)
    pairs = d[..., :, None] * d[..., None, :] * (G[group, group] - energies.diag())  # (rows, patterns, size, size)
    rounding = ROUNDING * (alone.abs().sum(dim=-1) + pairs.abs().sum(dim=(-2, -1)))
    return alone.sum(dim=-1) + pairs.sum(dim=(-2, -1)), rounding
