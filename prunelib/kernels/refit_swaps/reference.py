"""Refit swaps in plain torch, the specification of the compiled backend."""

from collections.abc import Iterator

import torch

from prunelib.kernels.interface import MAX_SWEEPS, RowResults

IMPROVEMENT = 1e-8
"""A swap is made only if it lowers the loss by more than this share of |w|^2."""

LEAST_SCHUR = 1e-7
"""Replaces a D_j that rounding has made smaller: D_j is a divisor."""

BOUND = 2.0
"""No swap lowers the loss of an optimal row by more than this multiple of the ridge times |w|^2."""

MOST_TRACE = 0.5
"""Largest trace of the inverse times the ridge for which the bound is proven."""

_CHUNK_BYTES = 64 * 1024 * 1024  # of one float64 value for each pair of a chunk's rows


def swap_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, group: int, threads: int
) -> Iterator[tuple[slice, RowResults, torch.Tensor]]:
    """Make the best swap of each row until none improves."""
    del threads  # torch has its own
    rows, inputs = weight.shape
    chunk = max(1, _CHUNK_BYTES // (8 * inputs * inputs))
    for start in range(0, rows, chunk):
        part = slice(start, min(start + chunk, rows))
        yield part, *_swap_rows(weight[part].double(), gram.double(), mask[part].clone(), group)


def swap_changes(w: torch.Tensor, G: torch.Tensor, m: torch.Tensor, group: int) -> torch.Tensor:
    """Compute dL(u, j) of every swap, (rows, u, j) float64, infinite where impossible."""
    H, x = least_squares(w, G, m)
    r = (w - x) @ G  # (rows, inputs)
    A = H @ G  # (rows, u, j)
    D = (G.diagonal() - (A * G).sum(dim=1)).clamp(min=LEAST_SCHUR)  # (rows, j)
    h = 1 / torch.where(m, H.diagonal(dim1=1, dim2=2), 1)
    prune = x**2 * h
    restore = (r[:, None, :] + A * (x * h)[:, :, None]) ** 2 / (D[:, None, :] + A**2 * h[:, :, None])
    groups = torch.arange(w.shape[1], device=w.device) // group
    possible = m[:, :, None] & ~m[:, None, :] & (groups[:, None] == groups)
    return (prune[:, :, None] - restore).masked_fill(~possible, torch.inf)


def least_squares(w: torch.Tensor, G: torch.Tensor, m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the inverse H of G_SS, (rows, inputs, inputs) with 0 outside S, and x = H G w, (rows, inputs)."""
    # With the identity outside S all rows are inverted as one batch, whatever their numbers of kept weights.
    kept = m[:, :, None] & m[:, None, :]
    H = torch.linalg.inv(torch.where(kept, G, torch.eye(len(G)).to(G))) * kept
    return H, (H @ (w @ G)[:, :, None])[:, :, 0]


def _swap_rows(w: torch.Tensor, G: torch.Tensor, m: torch.Tensor, group: int) -> tuple[RowResults, torch.Tensor]:
    rows, inputs = w.shape
    swaps, sweeps = torch.zeros((2, rows), dtype=torch.int64, device=w.device)
    loss_before = _losses(w, G, least_squares(w, G, m)[1])
    threshold = IMPROVEMENT * (w**2).sum(dim=1)
    optimal = torch.zeros(rows, dtype=torch.bool, device=w.device)
    while (active := ~optimal & (sweeps < MAX_SWEEPS)).any():
        change, best = swap_changes(w, G, m, group).flatten(1).min(dim=1)
        sweeps += active
        optimal |= active & ~(change < -threshold)
        active &= ~optimal
        r, u, j = active.nonzero()[:, 0], best[active] // inputs, best[active] % inputs
        m[r, u], m[r, j] = False, True
        swaps += active
    x = least_squares(w, G, m)[1]
    losses = _losses(w, G, x)
    optimal &= _within_bound(w, G, m, group)
    results = RowResults(
        mask=m, swaps=swaps, sweeps=sweeps, loss_before=loss_before, loss_after=losses, optimal=optimal
    )
    return results.cpu(), x


def _within_bound(w: torch.Tensor, G: torch.Tensor, m: torch.Tensor, group: int) -> torch.Tensor:
    """Return the rows of which no swap improves the loss without the ridge by more than the bound, (rows,) bool."""
    ridge = G[0, 0] - 1
    H, x = least_squares(w, G, m)
    e, A = w - x, H @ G  # (rows, inputs), (rows, u, j)
    D = (G.diagonal() - (A * G).sum(dim=1)).clamp(min=LEAST_SCHUR)  # (rows, j)
    h = 1 / torch.where(m, H.diagonal(dim1=1, dim2=2), 1)
    step, length = x * h, (H**2).sum(dim=1).sqrt()  # (rows, u)
    reach = (A**2).sum(dim=1).sqrt()  # (rows, j)
    restored = ((e @ G)[:, None, :] + A * step[:, :, None]) / (D[:, None, :] + A**2 * h[:, :, None])
    to_prune = (step.abs() * length)[:, :, None]
    to_restore = restored.abs() * (1 + reach[:, None, :] + A.abs() * (h * length)[:, :, None])
    squared = (e**2).sum(dim=1)
    farthest = squared.sqrt()[:, None, None] + to_prune + to_restore
    changes = swap_changes(w, G, m, group)
    gains = ridge * (2 * farthest**2 - squared[:, None, None]) - changes  # -inf where impossible
    trace = H.diagonal(dim1=1, dim2=2).sum(dim=1) + ((1 + reach**2) / D).masked_fill(m, 0).amax(dim=1)
    allowed = BOUND * ridge * (w**2).sum(dim=1)
    proven = (trace * ridge <= MOST_TRACE) & (gains.flatten(1).amax(dim=1) <= allowed)
    return proven | (_losses(w, G, x) - ridge * squared <= allowed)


def _losses(w: torch.Tensor, G: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Compute e^T G e of each row with e = w - x, (rows,)."""
    e = w - x
    return ((e @ G) * e).sum(dim=1).clamp(min=0)
