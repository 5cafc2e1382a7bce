"""Block moves for N:M: each group of M columns takes the best of its patterns given the rest of the row."""

from math import comb
from typing import Literal

import torch

from prunelib import settings as base
from prunelib.algebra.objective import check_layer
from prunelib.errors import PatternError
from prunelib.kernels import engine
from prunelib.kernels.results import refined, unscaled
from prunelib.kernels.scaling import equilibrate
from prunelib.masks.patterns import Pattern, check_mask
from prunelib.methods.refined import Progress, Refined, silent
from prunelib.methods.registry import About
from prunelib.runtime.machine import machine

_MOST_PATTERNS = 1000


def _has_few_patterns(pattern: Pattern) -> bool:
    return pattern.column_groups is not None and comb(*pattern.column_groups) <= _MOST_PATTERNS


ABOUT = About(
    "give each group of M the best of all its patterns, group after group, until none improves: a 1-swap optimum, and "
    "more",
    takes=_has_few_patterns,
    limits=f"it tries every pattern of a group: N:M with at most {_MOST_PATTERNS:,} patterns",
    streams=True,
)


class Settings(base.Settings):
    """There is nothing to set."""

    method: Literal["block_moves"] = "block_moves"


_DEFAULT = Settings()


def refine(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: Settings = _DEFAULT,
    progress: Progress = silent,
) -> Refined:
    """Change whole groups of M, exactly, as long as that lowers the pruning error.

    Parameters
    ----------
    weight
        (rows, inputs), any float dtype. It is not changed.
    gram
        (inputs, inputs) float32, sum over tokens of x x^T.
    mask
        (rows, inputs) bool, True = kept, with the exact counts of the pattern.
    pattern
        Of groups of columns, with at most 1,000 patterns a group.
    progress
        Told about rows as they are finished.

    Returns
    -------
    Refined
        ``swaps`` counts the groups changed, ``sweeps`` the visits to all groups of a row. ``optimal``: no other pattern
        of any one group improves the row, hence no swap; the last visit to all groups shows it.

    Raises
    ------
    NumericalError
        If a weight or Gram entry is NaN or infinite, or the shapes do not fit.
    PatternError
        If the mask does not have the pattern's counts, or the pattern is not such a one.
    """
    check_layer(weight, gram)
    check_mask(mask, weight, pattern)
    if not _has_few_patterns(pattern):
        raise PatternError(f"block_moves does not take the pattern {pattern.label}: {ABOUT.limits}")
    scaled = equilibrate(weight, gram)
    groups = pattern.groups(*weight.shape)
    finished = engine(weight.device, "block_moves").move_to_optimum(
        scaled.weight, scaled.gram, mask, groups, machine().threads
    )
    return refined(unscaled(finished, scaled.loss_scale), mask, progress)
