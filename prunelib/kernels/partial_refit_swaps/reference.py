"""Partial refit swaps in plain torch, the specification of the compiled backends."""

from collections.abc import Iterator

import torch

from prunelib.kernels.interface import MAX_SWEEPS, RowResults
from prunelib.kernels.refit_swaps.reference import IMPROVEMENT

DESCENTS = 2  # passes over the kept weights after a sweep that made swaps


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, start: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults, torch.Tensor]]:
    """Sweep over each row until no partial swap improves it."""
    del threads  # torch has its own
    G = gram.double()
    for r in range(len(mask)):
        rows = slice(r, r + 1)
        results = RowResults.untouched(mask[rows])
        row = _Row(weight[r].double(), G, mask[r].clone(), start[r].clone(), group)
        results.loss_before[:] = row.loss()
        while not results.optimal[0] and results.sweeps[0] < MAX_SWEEPS:
            made = row.sweep()
            results.swaps[:] += made
            results.sweeps[:] += 1
            results.optimal[:] = made == 0
        results.mask[0] = row.m
        results.loss_after[:] = row.loss()
        yield rows, results, row.x[None]


def swap_changes(
    x: torch.Tensor, c: torch.Tensor, G: torch.Tensor, m: torch.Tensor, group: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute dL(u, j) of every swap of a row, infinite where impossible, and the new x_j; both (u, j) float64."""
    groups = torch.arange(len(x), device=x.device) // group
    possible = m[:, None] & ~m & (groups[:, None] == groups)
    restored = (c + x[:, None] * G) / G.diagonal()
    change = (2 * x * c + x**2 * G.diagonal())[:, None] - restored**2 * G.diagonal()
    return change.masked_fill(~possible, torch.inf), restored


class _Row:
    """One row and its state, in float64."""

    def __init__(self, w: torch.Tensor, G: torch.Tensor, m: torch.Tensor, x: torch.Tensor, group: int) -> None:
        self.w, self.G, self.m, self.x, self.group = w, G, m, x, group
        self.c = (w - x) @ G
        self.threshold = IMPROVEMENT * float(w @ w)

    def loss(self) -> torch.Tensor:
        """Compute e^T G e."""
        return ((self.w - self.x) * self.c).sum().clamp(min=0)

    def sweep(self) -> int:
        """Sweep once and descend; return the number of swaps."""
        gains = swap_changes(self.x, self.c, self.G, self.m, self.group)[0].min(dim=1).values
        candidates = (gains < -self.threshold).nonzero()[:, 0]
        made = sum(self._visit(int(u)) for u in candidates[gains[candidates].argsort(stable=True)])
        for _ in range(DESCENTS if made else 0):
            for i in self.m.nonzero()[:, 0]:
                self._move(i, self.x[i] + self.c[i] / self.G[i, i])
        return made

    def _visit(self, u: int) -> bool:
        """Make the best swap that prunes u if it improves; return whether it was made."""
        changes, restored = swap_changes(self.x, self.c, self.G, self.m, self.group)
        change, j = changes[u].min(dim=0)
        if change >= -self.threshold:
            return False
        value = restored[u, j]
        self._move(u, torch.zeros_like(value))
        self._move(j, value)
        self.m[u], self.m[j] = False, True
        return True

    def _move(self, i: int | torch.Tensor, value: torch.Tensor) -> None:
        """Set x_i, and c with it."""
        self.c -= (value - self.x[i]) * self.G[i]
        self.x[i] = value
