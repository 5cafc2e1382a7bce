"""DSnoT: grow and prune weights until each row's expected error is small (Zhang et al., 2310.08915, ICLR 2024).

This is the rule of the authors' script (github.com/zyxxmu/DSnoT), which differs from their paper in what follows a
change of sign. With E[x] the sum of the inputs over a calibration window, mean of all windows, and Var(x) their
variance over tokens, a row's expected error is eps = sum of w_j E[x_j] over its pruned j. A cycle grows the pruned i
and prunes the kept j

    i = argmax  sign(eps) w_i E[x_i] / Var(x_i)
    j = argmin  |w_j| ||x_j||_2    among those with sign(eps) w_j E[x_j] < 0

and adds w_j E[x_j] - w_i E[x_i] to eps. No weight is grown or pruned twice. A row is done when |eps| is at most
``update_threshold``. What the equations leave open, as the script has it:

- Rows: a cycle may change the sign of eps, and the row goes on with the other sign. With ``same_sign``, for which the
  script has an option, that cycle is not made, and the row is done.
- Rows: if no weight of the sign that lowers |eps| is left to prune, j is that of the other sign with the *highest*
  |w_j| ||x_j||_2, as if the two were one list that is read from either end. That is rare but matters: ending such rows
  instead (11 of 155,520 of the default model at 60%) takes its perplexity from 158.0 to 186.7.
- N:M: j is the kept weight of lowest |w_j| ||x_j||_2 in i's group, whatever its sign. A cycle that would change the
  sign of eps is never made.
- The script skips the MLPs by default: ``skip: ["*.mlp.*"]``.

Where we differ, or the script has no rule:

- |w_j| ||x_j||_2 is the saliency whatever the warm start; under N:M the script takes the warm start's.
- Var(x) is that of all tokens (the script: the mean of the variances within windows), and at least 1e-6 E[x^2] per
  token, for inputs that hardly vary.
- Only weights with sign(eps) w_i E[x_i] > 0 are grown. A row with none left, or none to prune, is done; under N:M,
  groups with none to prune are passed over.
- Per layer, i and j are in the same row, so that every row's count is unchanged.
- Ties go to the lower column, but those of i to the higher while eps has not the sign that it began with.

Candidates are sorted once: for either sign of eps, the k-th cycle with that sign makes the k-th pair of that sign.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch.nn.functional import pad

from prunelib.algebra.objective import checked_layer, row_losses
from prunelib.algebra.tensors import real
from prunelib.errors import NumericalError
from prunelib.masks.checks import check_mask
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import NOTHING_ELSE, ExtraInputs, MethodSettings, Progress, Refined, Refiner, silent
from prunelib.runtime.compute import AUTO, Compute

_SLACK = 1e-3  # allowance for float32 rounding
_LEAST_VARIANCE = 1e-6  # relative to the second moment: the precision of a float32 Gram matrix
_LEAST = torch.finfo(torch.float32).tiny
_CHUNK = 256  # rows at a time: memory


class DSnoT(MethodSettings):
    """Settings of DSnoT; the defaults are the authors', on all layers.

    Attributes
    ----------
    max_cycles
        The largest number of weights of a row that are grown; as many are pruned.
    update_threshold
        A row is done when its expected error, summed over a calibration window, is at most this.
    same_sign
        Whether a row is done before its expected error would change its sign; under N:M it always is.
    skip
        Names of layers whose masks stay as they are, with ``*`` as a wildcard; ``*.mlp.*`` in the authors' script.
    """

    method: Literal["dsnot"] = "dsnot"
    max_cycles: Annotated[int, Field(ge=1)] = 50
    update_threshold: Annotated[float, Field(gt=0, le=1e9)] = 0.1
    same_sign: bool = False
    skip: tuple[str, ...] = ()

    @property
    def skipped_layers(self) -> tuple[str, ...]:
        """Those of ``skip``."""
        return self.skip


_DEFAULT = DSnoT()


class _Inputs(NamedTuple):
    """The inputs' statistics, each (inputs,) float64.

    ``total`` is the sum over a window, mean of all windows; ``variance`` that over tokens; ``norm`` is ||x_j||_2.
    """

    total: torch.Tensor
    variance: torch.Tensor
    norm: torch.Tensor


class _Pairs(NamedTuple):
    """The weights to grow and to prune in each cycle of one sign: columns (rows, cycles), and the reduction of |eps|.

    ``gain`` is float64, and NaN where a row has no more pairs.
    """

    grown: torch.Tensor
    pruned: torch.Tensor
    gain: torch.Tensor


def dsnot(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: DSnoT = _DEFAULT,
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
        The mask of an expert that saw no token is unchanged.

    Raises
    ------
    NumericalError
        Also if ``extra`` has no ``input_mean``, ``tokens`` or ``windows``, or they do not fit the Gram matrix; or no
        ``name``, and ``settings.skip`` has some.
    """
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    skipped = _is_skipped(extra.name, settings.skip) or extra.tokens == 0  # nothing is known of the inputs
    inputs = None if skipped else _statistics(gram, extra)
    parts, G = [], gram.double()
    for w, m in zip(weight.split(_CHUNK), mask.split(_CHUNK), strict=True):
        after, swaps = _refine_rows(w.double(), m, inputs, pattern, settings) if inputs else _unchanged(m)
        parts.append((after, row_losses(w, G, m), row_losses(w, G, after), swaps))
        progress(len(m), float(parts[-1][1].sum()), float(parts[-1][2].sum()))
    refined, before, after, swaps = (torch.cat(part) for part in zip(*parts, strict=True))
    return Refined(refined, before, after, swaps=swaps)


METHOD = Refiner(
    settings=DSnoT,
    refine=dsnot,
    summary=(
        "grow and prune up to `max_cycles` weights per row until its expected error over a window is at most "
        "`update_threshold`; with `same_sign`, and always within groups, stop before that error changes its sign. As "
        'the authors\' script, which also skips the MLPs (`skip: ["*.mlp.*"]`). May raise the pruning error'
    ),
    source="Zhang et al., [2310.08915](https://arxiv.org/abs/2310.08915)",
    monotone=False,
    extra_inputs=("input_mean", "tokens", "windows", "name"),
)


def _is_skipped(name: str | None, skip: tuple[str, ...]) -> bool:
    if skip and name is None:
        raise NumericalError("name: missing, DSnoT needs the layer's name to skip it")
    return any(fnmatchcase(name or "", pattern) for pattern in skip)


def _statistics(gram: torch.Tensor, extra: ExtraInputs) -> _Inputs:
    """Return the statistics of the inputs; refuse a mean inconsistent with the Gram matrix."""
    input_mean, tokens, windows = extra.input_mean, extra.tokens, extra.windows
    if input_mean is None or tokens is None or windows is None:
        missing = next(name for name in ("input_mean", "tokens", "windows") if getattr(extra, name) is None)
        raise NumericalError(
            f"{missing}: missing, DSnoT needs the mean of the layer's inputs, the number of tokens and that of windows"
        )
    for name, count in (("tokens", tokens), ("windows", windows)):
        if count < 1:
            raise NumericalError(f"{name}: {count}, expected at least 1")
    input_mean = real("input_mean", input_mean)
    if input_mean.shape != gram.shape[:1]:
        raise NumericalError(f"input_mean: shape {tuple(input_mean.shape)}, expected {tuple(gram.shape[:1])}")
    mean, square = input_mean.to(gram.device).double(), gram.diagonal().double() / tokens
    if not (mean**2 <= (1 + _SLACK) * square + _LEAST).all():
        raise NumericalError(f"input_mean: not the mean of the Gram matrix's inputs over {tokens} tokens")
    variance = (square - mean**2).clamp(min=_LEAST_VARIANCE * square).clamp(min=_LEAST)
    return _Inputs(mean * (tokens / windows), variance, gram.diagonal().double().sqrt())


def _unchanged(m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return m, torch.zeros(len(m), dtype=torch.int64, device=m.device)


def _refine_rows(
    w: torch.Tensor, m: torch.Tensor, inputs: _Inputs, pattern: Pattern, settings: DSnoT
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the masks of rows w (rows, inputs) float64 after their last cycle, and the cycle counts (rows,) int64."""
    share = w * inputs.total
    eps = share.masked_fill(m, 0).cumsum(dim=1)[:, -1:]  # cumsum is sequential; sum() splits a long row over threads
    share *= eps.sign()
    saliency, cycles = w.abs() * inputs.norm, settings.max_cycles
    group = pattern.group_columns(w.shape[1])
    one_sign = settings.same_sign or group is not None
    if group:
        pairs = [_pairs_of_groups(share, saliency, m, inputs.variance, group, cycles)]
    else:
        growth = (share / inputs.variance).masked_fill(m, 0).sort(descending=True, stable=True)
        pruning, kept, signs = _pruning_order(share, saliency, m), m.sum(dim=1, keepdim=True), (1, -1)
        pairs = [_pairs_of_rows(share, growth, pruning, kept, sign, cycles) for sign in signs[: 1 if one_sign else 2]]
    gain = torch.stack([each.gain for each in pairs], dim=1)
    made = _made(eps.abs().squeeze(1), gain, m.sum(dim=1), one_sign, settings)
    after = m.clone()
    for each, number in zip(pairs, made.unbind(dim=1), strict=True):
        rows, cycle = (torch.arange(each.gain.shape[1], device=m.device) < number[:, None]).nonzero(as_tuple=True)
        after[rows, each.grown[rows, cycle]] = True
        after[rows, each.pruned[rows, cycle]] = False
    return after, made.sum(dim=1)


def _pairs_of_groups(
    share: torch.Tensor, saliency: torch.Tensor, m: torch.Tensor, variance: torch.Tensor, group: int, cycles: int
) -> _Pairs:
    """Pair weights within groups of ``group`` columns, in the order of the cycles, at most ``cycles`` pairs.

    ``share`` and ``saliency`` (rows, inputs) float64 are sign(eps) w_j E[x_j], and |w_j| ||x_j||_2.
    """
    groups = (len(share), -1, group)
    growth = (share / variance).masked_fill(m, 0).view(groups).sort(descending=True, stable=True)
    pruning = saliency.where(m, torch.inf).view(groups).sort(stable=True)
    paired = ((growth.values > 0) & (pruning.values < torch.inf)).flatten(1)
    order = growth.values.flatten(1).where(paired, 0).argsort(descending=True, stable=True)[:, :cycles]
    first = torch.arange(0, share.shape[1], group, device=share.device)[:, None]
    grown, pruned = ((found.indices + first).flatten(1).gather(1, order) for found in (growth, pruning))
    gain = (share.gather(1, grown) - share.gather(1, pruned)).where(paired.gather(1, order), torch.nan)
    return _Pairs(grown, pruned, gain)


def _pruning_order(share: torch.Tensor, saliency: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Return the columns (rows, inputs) in the order in which they are pruned: from the left while eps > 0.

    First those with share < 0 by rising saliency, last those with share > 0 by falling saliency, then the pruned ones.
    """
    order = saliency.where(m, torch.inf).argsort(stable=True)
    kept, sign = m.gather(1, order), share.gather(1, order).sign()
    lowering, neutral, raising = ((sign == each) & kept for each in (-1, 0, 1))
    left, middle, right = (of_sign.cumsum(dim=1) for of_sign in (lowering, neutral, raising))
    position = torch.arange(share.shape[1], device=share.device).expand_as(order)  # of the pruned ones
    position = (m.sum(dim=1, keepdim=True) - right).where(raising, position)
    position = (left[:, -1:] + middle - 1).where(neutral, position)
    position = (left - 1).where(lowering, position)
    return torch.empty_like(order).scatter_(1, position, order)


def _pairs_of_rows(
    share: torch.Tensor,
    growth: torch.return_types.sort,
    pruning: torch.Tensor,
    kept: torch.Tensor,
    sign: int,
    cycles: int,
) -> _Pairs:
    """Pair weights within rows for the cycles of one sign of eps, at most ``cycles`` pairs.

    Parameters
    ----------
    growth, pruning
        Both orders, read from the left while eps > 0, else from the right.
    kept
        (rows, 1) int64: how many weights may be pruned.
    """
    inputs = share.shape[1]
    cycle = torch.arange(min(cycles, inputs), device=share.device).expand(len(share), -1)
    at = (cycle, cycle) if sign > 0 else (inputs - 1 - cycle, (kept - 1 - cycle).clamp(min=0))
    grown, pruned = growth.indices.gather(1, at[0]), pruning.gather(1, at[1])
    gain = sign * (share.gather(1, grown) - share.gather(1, pruned))
    return _Pairs(grown, pruned, gain.where(sign * growth.values.gather(1, at[0]) > 0, torch.nan))


def _made(eps: torch.Tensor, gain: torch.Tensor, kept: torch.Tensor, one_sign: bool, settings: DSnoT) -> torch.Tensor:
    """Return how many pairs of each sign are made, (rows, signs) int64.

    Parameters
    ----------
    eps
        (rows,) float64, not negative: sign(eps) of the start is the first sign.
    gain
        (rows, signs, cycles) float64, as in :class:`_Pairs`.
    kept
        (rows,) int64: the weights that may be pruned.
    one_sign
        Whether the cycle that would change the sign is not made.
    """
    rows, gain = torch.arange(len(eps), device=eps.device), pad(gain, (0, 1), value=torch.nan)
    made = torch.zeros(gain.shape[:2], dtype=torch.int64, device=eps.device)
    going = torch.ones_like(eps, dtype=torch.bool)
    for _ in range(settings.max_cycles):
        sign = (eps < 0).long()
        after = eps - eps.sign() * gain[rows, sign, made[rows, sign]]
        going &= (eps.abs() > settings.update_threshold) & (made.sum(dim=1) < kept)
        going &= (after > 0) if one_sign else after.isfinite()
        if not going.any():
            break
        eps = after.where(going, eps)
        made[rows, sign] += going
    return made
