"""A refiner of one's own: what a module in prunelib/refiners/ needs, and how it is tried on a layer.

    python examples/write_a_refiner.py

It drops, in each row, the worst kept weight for the best pruned one, once, where that lowers the row's error. Copied to
prunelib/refiners/first_swap.py it is found by its name: in params.yaml, `prunelib prune --refiner first_swap`, and the
table of `prunelib methods`.

Prints:

    error 7.391e+07 -> 7.222e+07, 28 swaps
"""

from typing import Literal

import torch

from prunelib.algebra.objective import row_losses
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import NOTHING_ELSE, ExtraInputs, MethodSettings, Progress, Refined, Refiner, silent
from prunelib.runtime.compute import AUTO, Compute


class FirstSwap(MethodSettings):
    """Settings of first swap; each is a key in params.yaml."""

    method: Literal["first_swap"] = "first_swap"


DEFAULT = FirstSwap()


def first_swap(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: FirstSwap = DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Exchange at most one pair of weights in each row."""
    before = row_losses(weight, gram, mask)
    scores = weight.abs() * gram.diagonal().sqrt()
    drop = scores.masked_fill(~mask, torch.inf).argmin(dim=1, keepdim=True)
    take = scores.masked_fill(mask, -torch.inf).argmax(dim=1, keepdim=True)
    swapped = mask.scatter(1, drop, value=False).scatter(1, take, value=True)
    after = row_losses(weight, gram, swapped)
    better = after < before
    progress(len(mask), float(before.sum()), float(torch.minimum(before, after).sum()))
    return Refined(
        torch.where(better[:, None], swapped, mask), before, torch.minimum(before, after), swaps=better.long()
    )


METHOD = Refiner(
    settings=FirstSwap,
    refine=first_swap,
    summary="one swap a row, if it helps",
    supports=lambda pattern: pattern.column_groups is None,  # a swap across groups would change their counts
    limits="swaps within rows only",
)


if __name__ == "__main__":
    from prunelib import PerRow, gram_matrix, magnitude, select

    torch.manual_seed(0)
    weight, gram = torch.randn(64, 128), gram_matrix(torch.randn(1000, 128) @ torch.randn(128, 128))
    start = select(magnitude(weight, gram), PerRow(sparsity=0.5))
    found = METHOD.refine(weight, gram, start, PerRow(sparsity=0.5))
    before, after = float(found.loss_before.sum()), float(found.loss_after.sum())
    print(f"error {before:.4g} -> {after:.4g}, {int(found.swaps.sum())} swaps")
