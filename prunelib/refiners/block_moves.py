"""Block moves for N:M: each group of M columns is set to its best pattern given the rest of the row."""

from dataclasses import replace
from math import comb
from typing import Literal

import torch

from prunelib.algebra.objective import checked_layer
from prunelib.errors import PatternError
from prunelib.kernels import backend
from prunelib.kernels.results import collect_with_progress, unscaled
from prunelib.kernels.scaling import equilibrate
from prunelib.kernels.verification import verified
from prunelib.masks.checks import check_mask
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import NOTHING_ELSE, ExtraInputs, MethodSettings, Progress, Refined, Refiner, silent
from prunelib.runtime.compute import AUTO, Compute

_MOST_PATTERNS = 1000


def _has_few_patterns(pattern: Pattern) -> bool:
    return pattern.column_groups is not None and comb(*pattern.column_groups) <= _MOST_PATTERNS


class BlockMoves(MethodSettings):
    """No settings besides the method's name."""

    method: Literal["block_moves"] = "block_moves"


_DEFAULT = BlockMoves()


def block_moves(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: BlockMoves = _DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Set whole groups of M columns to their exact best pattern until no change lowers the pruning error.

    Arguments and errors: :class:`prunelib.methods.contract.Refine`.

    Returns
    -------
    Refined
        ``swaps`` counts changed groups, ``sweeps`` passes over all groups of a row. ``optimal``: the last pass showed
        that no other pattern of any single group improves the row; hence no swap does either.
    """
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    if not _has_few_patterns(pattern):
        raise PatternError(f"block_moves does not support the pattern {pattern.label}: {METHOD.limits}")
    scaled = equilibrate(weight, gram)
    groups = pattern.groups(*weight.shape)
    finished = backend(weight.device, "block_moves", compute).move_to_optimum(
        scaled.weight, scaled.gram, mask, groups, compute.workers
    )
    found = collect_with_progress(unscaled(finished, scaled.loss_scale), mask, progress)
    return replace(found, optimal=verified(scaled, weight, found, groups.size))


METHOD = Refiner(
    settings=BlockMoves,
    refine=block_moves,
    summary=(
        "set each group of M to the best of all its patterns, one group after another, until none improves; the "
        "result is also a 1-swap optimum"
    ),
    supports=_has_few_patterns,
    limits=f"it tries every pattern of a group: N:M with at most {_MOST_PATTERNS:,} patterns",
    accepts_cpu_gram=True,
)
