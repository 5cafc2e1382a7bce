"""The mask that keeps the highest scores of each group of a pattern."""

import torch

from prunelib.algebra.tensors import values
from prunelib.errors import NumericalError, PatternError
from prunelib.masks.patterns import Pattern, checked_pattern


def select(scores: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Keep the highest scores of each group, by rank: exact counts, ties to the lower row, then column.

    Parameters
    ----------
    scores
        (rows, inputs), any real dtype, free of NaN.

    Returns
    -------
    torch.Tensor
        (rows, inputs) bool, True = kept.

    Raises
    ------
    NumericalError
        If the scores are no matrix of real numbers, or one is NaN (it would sort last and be kept).
    PatternError
        If the pattern does not fit the number of inputs.

    Examples
    --------
    >>> prunelib.select(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), prunelib.NOfM(keep=2, group=4))
    tensor([[False,  True, False,  True]])
    """
    scores = values("scores", scores)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise NumericalError(f"scores: shape {tuple(scores.shape)}, expected (rows, inputs)")
    if scores.is_complex() or scores.dtype == torch.bool:
        raise NumericalError(f"scores: {scores.dtype}, expected real numbers")
    if scores.isnan().any():
        raise NumericalError("scores: NaN found, expected real numbers")
    size, keep = checked_pattern(pattern).groups(*scores.shape)
    if not 0 < keep <= size:
        raise PatternError(f"{pattern.label}: keeps {keep} of the {size} weights of a group, expected at least 1")
    groups = scores.reshape(-1, size)
    least = groups.topk(keep, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    above, equal = groups > least, groups == least
    left = keep - above.sum(dim=1, keepdim=True)
    return (above | (equal & (equal.cumsum(dim=1) <= left))).reshape(scores.shape)
