"""Relaxed swaps in plain torch, the specification of the compiled backends."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

NEAR = 0.5  # share of the largest drop from which on a pair is made
PAIRS = 8  # a round finds inputs // PAIRS pairs
FLAT = 1e-12
"""Least curvature when takers are compared, in equilibrated units; it is a divisor."""
OUTSIDE = 1e30
"""Mass and slack of the outside, to which groups sell and from which they buy."""


class Operands(NamedTuple):
    """The tensors of a descent, as :mod:`prunelib.kernels.relaxed_swaps` describes them.

    weight is (rows, inputs) float32, gram (inputs, inputs) float32, shifts (stages, inputs) float64, mass
    (rows, inputs) float64 and fixed (rows, inputs) bool.
    """

    weight: torch.Tensor
    gram: torch.Tensor
    shifts: torch.Tensor
    mass: torch.Tensor
    fixed: torch.Tensor


def descend(
    operands: Operands, group: int, price: float | None, tolerance: float, rounds: int, threads: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Make relaxed swaps on one objective after the other; see :mod:`prunelib.kernels.relaxed_swaps`."""
    del threads  # torch has its own
    rows = _Rows(operands, group, price)
    for shift in operands.shifts:
        rows.shift = _padded(shift)
        for _ in range(rounds):
            open_rows = rows.gap() > tolerance * rows.loss()
            if not open_rows.any():
                break
            rows.make_round(open_rows)
    yield slice(0, len(operands.weight)), rows.mass[:, :-1].clamp(max=1)


class _Rows:
    """Rows and their state, in float64, (rows, inputs + 1); the outside is the last column, of weight 0."""

    def __init__(self, operands: Operands, group: int, price: float | None) -> None:
        weight, gram, _, mass, fixed = operands
        inputs = weight.shape[1]
        self.w, self.mass, self.slack = (_padded(value.double()) for value in (weight, mass, 1 - mass))
        self.G = torch.nn.functional.pad(gram.double(), (0, 1, 0, 1))
        self.c = ((1 - self.mass) * self.w) @ self.G
        self.shift = torch.zeros(inputs + 1).to(self.w)
        self.movable = torch.nn.functional.pad(~fixed, (0, 1), value=price is not None)
        self.price = price
        self.mass[:, -1] = self.slack[:, -1] = 0 if price is None else OUTSIDE
        inside = torch.arange(inputs, device=weight.device).reshape(-1, group)
        self.columns = torch.nn.functional.pad(inside, (0, 1), value=inputs)  # (groups, group + 1)

    def gradient(self) -> torch.Tensor:
        """Compute df/dm, for the outside minus the price; (rows, inputs + 1)."""
        gradient = self.w * (self.shift * self.w * (1 - 2 * self.mass) - 2 * self.c)
        gradient[:, -1] = -(self.price or 0)
        return gradient

    def loss(self) -> torch.Tensor:
        """Compute f(m), (rows,)."""
        return ((1 - self.mass) * self.w * (self.c + self.shift * self.w * self.mass)).sum(dim=1)

    def gap(self) -> torch.Tensor:
        """Compute the dual gap, max <gradient, m - v> over the polytope, with a price over the box; (rows,)."""
        inside = self.columns[:, :-1]
        movable = self.movable[:, inside]  # (rows, groups, group)
        mass = (self.mass[:, inside] * movable).sum(dim=2, keepdim=True)
        gradient = (self.gradient()[:, inside] + (self.price or 0)) * movable
        held = (gradient * self.mass[:, inside]).sum(dim=(1, 2))
        if self.price is not None:
            return held - gradient.clamp(max=0).sum(dim=(1, 2))
        ranked = gradient.masked_fill(~movable, torch.inf).argsort(dim=2)
        taken = (mass - torch.arange(inside.shape[1]).to(mass)).clamp(0, 1)
        return held - (gradient.gather(2, ranked) * taken).sum(dim=(1, 2))

    def make_round(self, active: torch.Tensor) -> None:
        """Scan and swap in the active rows (rows,) until a round's number of pairs is reached."""
        found = torch.zeros_like(active, dtype=torch.int64)
        while active.any():
            drop, giver, taker = self.pairs()
            near = active[:, None] & (drop > 0) & (drop >= NEAR * drop.amax(dim=1, keepdim=True))
            for q in range(len(self.columns)):
                r = near[:, q].nonzero()[:, 0]
                self.swap(r, giver[r, q], taker[r, q])
            found += near.sum(dim=1)
            active = near.any(dim=1) & (found < max(1, (self.w.shape[1] - 1) // PAIRS))

    def pairs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the best pair of each group: its drop, its giver and its taker; each (rows, groups)."""
        rows, columns = torch.arange(len(self.w), device=self.w.device), self.columns
        gradient, movable = self.gradient(), self.movable[:, columns]
        mass, slack = (value[:, columns] * movable for value in (self.mass, self.slack))
        most, at = gradient[:, columns].masked_fill(mass <= 0, -torch.inf).max(dim=2)
        giver = columns.expand(len(rows), -1, -1).gather(2, at[:, :, None])  # (rows, groups, 1)
        energy = self.w**2 * (self.G.diagonal() - self.shift)
        r = rows[:, None, None]
        slope = (most[:, :, None] - gradient[:, columns]).clamp(min=0)
        curvature = (
            energy[r, giver] + energy[:, columns] - 2 * self.w[r, giver] * self.w[:, columns] * self.G[giver, columns]
        )
        step = torch.minimum(
            torch.minimum(mass.gather(2, at[:, :, None]), slack), slope / (2 * curvature.clamp(min=FLAT))
        )
        drop, at = (step * (slope - curvature * step)).max(dim=2)
        return drop, giver[:, :, 0], columns.expand(len(rows), -1, -1).gather(2, at[:, :, None])[:, :, 0]

    def swap(self, r: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> None:
        """Move mass from i to j in the rows r, each (n,), by the exact line search under the current state."""
        gradient, wi, wj, d, G = self.gradient(), self.w[r, i], self.w[r, j], self.shift, self.G
        slope = gradient[r, i] - gradient[r, j]
        curvature = wi**2 * (G[i, i] - d[i]) + wj**2 * (G[j, j] - d[j]) - 2 * wi * wj * G[i, j]
        step = torch.minimum(self.mass[r, i], self.slack[r, j])
        # Along a concave edge (curvature <= 0) the whole step is taken.
        step = torch.where(2 * curvature * step > slope, slope / (2 * curvature), step) * (slope > 0)
        for column, sign in ((i, -1), (j, 1)):
            self.mass[r, column] += sign * step
            self.slack[r, column] -= sign * step
        self.c[r] += (step * wi)[:, None] * G[i] - (step * wj)[:, None] * G[j]


def _padded(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, 1))
