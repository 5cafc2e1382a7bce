"""DSnoT: grow and prune weights until each row's expected error is small (Zhang et al., 2310.08915, ICLR 2024).

With E[x] and Var(x) the mean and the variance of the inputs over the calibration tokens, a row's expected error is
eps = sum of w_j E[x_j] over its pruned j. A cycle grows the pruned i and prunes the kept j

    i = argmax  sign(eps) w_i E[x_i] / Var(x_i)
    j = argmin  |w_j| ||x_j||_2    among those with sign(eps) w_j E[x_j] < 0

and subtracts w_i E[x_i] - w_j E[x_j] from eps. A row is done when |eps| is small or eps has changed its sign.

The equations leave details open. This is the variant here:

- eps is summed over a sequence of 2048 tokens: the authors' script sums inputs over a sequence and averages over
  sequences, and their threshold 0.1 is in that unit. Per token, 0.1 would stop most rows at once.
- Var(x) is at least 1e-6 E[x^2], for inputs that hardly vary.
- As for pruning, only weights that lower |eps| can be grown. A row without weights to grow or prune is done.
- The cycle in which eps changes its sign is still applied.
- N:M: i and j are in the same group; i is the best one whose group still has a j.
- Per layer: i and j are in the same row, so that every row's count is unchanged.
- Ties go to the lower column.

As long as eps keeps its sign, a grown weight is never pruned again, nor a pruned one grown. The cycles of a row are
thus its sorted candidates, paired from the start; eps only decides how many cycles are applied.
"""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch.nn.functional import pad

from prunelib.algebra.objective import checked_layer, row_losses
from prunelib.errors import NumericalError
from prunelib.masks.patterns import Pattern, check_mask, swap_columns
from prunelib.methods.contract import NOTHING_ELSE, ExtraInputs, MethodSettings, Progress, Refined, Refiner, silent
from prunelib.runtime.compute import AUTO, Compute

_SEQUENCE = 2048  # tokens
_SLACK = 1e-3  # allowance for float32 rounding
_LEAST_VARIANCE = 1e-6  # relative to the second moment: the precision of a float32 Gram matrix
_LEAST = torch.finfo(torch.float32).tiny
_CHUNK = 256  # rows at a time: memory


class Settings(MethodSettings):
    """Settings of DSnoT; the defaults are the paper's.

    Attributes
    ----------
    max_cycles
        The largest number of weights of a row that are grown; as many are pruned.
    update_threshold
        A row is done when its expected error, summed over 2048 tokens, is less than this.
    """

    method: Literal["dsnot"] = "dsnot"
    max_cycles: Annotated[int, Field(ge=1)] = 50
    update_threshold: Annotated[float, Field(gt=0)] = 0.1


_DEFAULT = Settings()


class _Inputs(NamedTuple):
    """The inputs' statistics over the tokens, each (inputs,) float64; ``norm`` is ||x_j||_2."""

    mean: torch.Tensor
    variance: torch.Tensor
    norm: torch.Tensor


class _Cycles(NamedTuple):
    """All possible cycles of each row in order: columns (rows, cycles), and the reduction of |eps| in float64.

    ``gain`` is 0 where a row has no more cycles.
    """

    grown: torch.Tensor
    pruned: torch.Tensor
    gain: torch.Tensor


def refine(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: Settings = _DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Grow and prune weights within a row, or a group of M, until the row's expected error is small.

    Arguments and errors: :class:`prunelib.methods.contract.Refine`.

    Returns
    -------
    Refined
        ``swaps`` counts cycles. ``loss_after`` may exceed ``loss_before``: the method does not use the pruning error.

    Raises
    ------
    NumericalError
        Also if ``extra`` has no ``input_mean`` or ``tokens``, or they do not fit the Gram matrix.
    """
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    inputs = _statistics(gram, extra.input_mean, extra.tokens)
    group = swap_columns(pattern, weight.shape[1])
    parts, G = [], gram.double()
    for w, m in zip(weight.split(_CHUNK), mask.split(_CHUNK), strict=True):
        after, swaps = _refine_rows(w.double(), m, inputs, group, settings)
        parts.append((after, row_losses(w, G, m), row_losses(w, G, after), swaps))
        progress(len(m), float(parts[-1][1].sum()), float(parts[-1][2].sum()))
    refined, before, after, swaps = (torch.cat(part) for part in zip(*parts, strict=True))
    return Refined(refined, before, after, swaps=swaps)


METHOD = Refiner(
    settings=Settings,
    refine=refine,
    summary=(
        "grow and prune weights until a row's mean output error is below `update_threshold`, at most `max_cycles` "
        "each; it may raise the pruning error"
    ),
    source="Zhang et al., [2310.08915](https://arxiv.org/abs/2310.08915)",
    monotone=False,
    extra_inputs=("input_mean", "tokens"),
)


def _statistics(gram: torch.Tensor, input_mean: torch.Tensor | None, tokens: int | None) -> _Inputs:
    """Return mean, variance and norm of the inputs; refuse a mean inconsistent with the Gram matrix."""
    if input_mean is None or tokens is None:
        missing = "input_mean" if input_mean is None else "tokens"
        raise NumericalError(f"{missing}: missing, DSnoT needs the mean of the layer's inputs and the number of tokens")
    if input_mean.shape != gram.shape[:1]:
        raise NumericalError(f"input_mean: shape {tuple(input_mean.shape)}, expected {tuple(gram.shape[:1])}")
    mean, square = input_mean.to(gram.device).double(), gram.diagonal().double() / tokens
    if not (mean**2 <= (1 + _SLACK) * square + _LEAST).all():
        raise NumericalError(f"input_mean: not the mean of the Gram matrix's inputs over {tokens} tokens")
    variance = (square - mean**2).clamp(min=_LEAST_VARIANCE * square).clamp(min=_LEAST)
    return _Inputs(mean, variance, gram.diagonal().double().sqrt())


def _refine_rows(
    w: torch.Tensor, m: torch.Tensor, inputs: _Inputs, group: int, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the masks of rows w (rows, inputs) float64 after their last cycle, and the cycle counts (rows,) int64."""
    share = _SEQUENCE * w * inputs.mean
    eps = share.masked_fill(m, 0).cumsum(dim=1)[:, -1:]  # cumsum is sequential; sum() splits a long row over threads
    share *= eps.sign()
    cycles = _cycles(share, w.abs() * inputs.norm, m, inputs.variance, group)
    left = eps.abs() - pad(cycles.gain.cumsum(dim=1), (1, -1))  # before each cycle
    made = (cycles.gain > 0) & (left >= settings.update_threshold)
    made[:, settings.max_cycles :] = False
    rows, cycle = made.nonzero(as_tuple=True)
    after = m.clone()
    after[rows, cycles.grown[rows, cycle]] = True
    after[rows, cycles.pruned[rows, cycle]] = False
    return after, made.sum(dim=1)


def _cycles(
    share: torch.Tensor, saliency: torch.Tensor, m: torch.Tensor, variance: torch.Tensor, group: int
) -> _Cycles:
    """Pair the weights to grow with those to prune.

    Parameters
    ----------
    share, saliency
        (rows, inputs) float64: sign(eps) w_j E[x_j], and |w_j| ||x_j||_2.
    group
        Number of consecutive columns within which weights are paired.
    """
    groups = (len(share), -1, group)
    growth = (share / variance).masked_fill(m, 0).view(groups).sort(descending=True, stable=True)
    pruning = saliency.where(m & (share < 0), torch.inf).view(groups).sort(stable=True)
    paired = (growth.values > 0) & (pruning.values < torch.inf)
    first = torch.arange(0, share.shape[1], group, device=share.device)[:, None]
    grown, pruned = ((order.indices + first).flatten(1) for order in (growth, pruning))
    gain = (share.gather(1, grown) - share.gather(1, pruned)).where(paired.flatten(1), 0)
    order = growth.values.where(paired, 0).flatten(1).argsort(descending=True, stable=True)
    return _Cycles(*(of_cycle.gather(1, order) for of_cycle in (grown, pruned, gain)))
