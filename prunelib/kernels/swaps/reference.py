"""1-swaps in plain torch, the specification of the compiled backends."""

from collections.abc import Iterator

import torch

from prunelib.kernels.interface import LOSS_TOLERANCE, MAX_SWEEPS, ROUNDING, RowResults

_CHUNK_BYTES = 128 * 1024 * 1024  # of one float64 value for each pair of a chunk's rows


def swap_best(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, max_swaps: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Make the best swap of each row, at most ``max_swaps`` times; see :mod:`prunelib.kernels.swaps`."""
    del threads  # torch has its own
    rows, inputs = weight.shape
    chunk = max(1, _CHUNK_BYTES // (8 * inputs * inputs))
    for start in range(0, rows, chunk):
        part = slice(start, min(start + chunk, rows))
        yield part, _swap_rows(weight[part].double(), gram.double(), mask[part].clone(), group, max_swaps)


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Make the best swap of each row until none improves; see :mod:`prunelib.kernels.swaps`."""
    return swap_best(weight, gram, mask, group, MAX_SWEEPS, threads)


def swap_changes(w: torch.Tensor, G: torch.Tensor, m: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute dL(u, j), (rows, u, j) float64, infinite where impossible; and the bound of its rounding error."""
    c = (w * ~m) @ G  # (rows, inputs)
    energy = w**2 * G.diagonal()
    a = 2 * w * c + energy
    b = -2 * w * c + energy
    interaction = 2 * w[:, :, None] * w[:, None, :] * G  # (rows, u, j)
    change = a[:, :, None] + b[:, None, :] - interaction
    rounding = ROUNDING * (a.abs()[:, :, None] + b.abs()[:, None, :] + interaction.abs())
    groups = torch.arange(w.shape[1], device=w.device) // group
    possible = m[:, :, None] & ~m[:, None, :] & (groups[:, None] == groups)
    return change.masked_fill(~possible, torch.inf), rounding


def _swap_rows(w: torch.Tensor, G: torch.Tensor, m: torch.Tensor, group: int, max_swaps: int) -> RowResults:
    rows, inputs = w.shape
    swaps, sweeps = torch.zeros((2, rows), dtype=torch.int64, device=w.device)
    loss_before = _losses(w, G, m)
    active = torch.ones(rows, dtype=torch.bool, device=w.device)
    optimal = torch.zeros_like(active)
    while active.any():
        change, rounding = (value.flatten(1) for value in swap_changes(w, G, m, group))
        best = change.argmin(dim=1, keepdim=True)  # (rows, 1), of the flattened pairs: the lowest u, then j, of equals
        threshold = LOSS_TOLERANCE * _losses(w, G, m) + rounding.gather(1, best)[:, 0]
        improves = change.gather(1, best)[:, 0] < -threshold
        sweeps += active
        optimal = torch.where(active, ~improves, optimal)
        active &= improves & (swaps < max_swaps)
        r, u, j = active.nonzero()[:, 0], best[active, 0] // inputs, best[active, 0] % inputs
        m[r, u], m[r, j] = False, True
        swaps += active
    losses = _losses(w, G, m)
    return RowResults(
        mask=m, swaps=swaps, sweeps=sweeps, loss_before=loss_before, loss_after=losses, optimal=optimal
    ).cpu()


def _losses(w: torch.Tensor, G: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Compute p^T G p of each row, (rows,)."""
    p = w * ~m
    return ((p @ G) * p).sum(dim=1).clamp(min=0)
