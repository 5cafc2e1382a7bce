"""Refit swaps: 1-swaps evaluated with re-estimated kept weights, and these weights.

Each row is a selection of k of d columns in least squares; SparseSwaps (Zimmer et al., arXiv 2512.10922) keeps the
weights fixed instead. With ``refit: restored`` a swap is evaluated with the restored weight re-estimated, as in the
partial swaps of L0Learn (Hazimeh & Mazumder, arXiv 1803.01454); the other weights are updated between sweeps, and by
least squares at the end. With ``refit: all`` it is evaluated with all kept weights re-estimated, as in the exchange
algorithms of regression (Miller, "Subset Selection in Regression", 2002, chapter 3). Equations:
:mod:`prunelib.kernels.partial_refit_swaps.reference` and :mod:`prunelib.kernels.refit_swaps.reference`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from prunelib.algebra.least_squares import solve_on_support
from prunelib.algebra.objective import checked_layer, damped, input_norms
from prunelib.kernels import backend
from prunelib.kernels.interface import RowResults
from prunelib.kernels.results import collect_rows
from prunelib.masks.checks import check_mask
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import (
    NOTHING_ELSE,
    ExtraInputs,
    MethodSettings,
    Progress,
    Refined,
    Refiner,
    silent,
)
from prunelib.methods.kept_weights import KeptWeights, kept_weights, starting_weights, the_better
from prunelib.methods.workspace import Workspace
from prunelib.runtime.compute import AUTO, Compute
from prunelib.settings import Damping


class RefitSwaps(MethodSettings):
    """Settings of refit swaps.

    Attributes
    ----------
    refit
        The weights re-estimated to evaluate a swap: ``restored``, at about the cost of plain swaps, or ``all`` kept
        weights, which inverts a matrix for each row.
    damping
        Minimise e^T G e + damping * mean(diag G) * |e|^2 with e = w - x, pruned weights included: the second term keeps
        weights near the model's where the calibration tokens determine them poorly. 0: least error on these tokens.
    """

    method: Literal["refit_swaps"] = "refit_swaps"
    refit: Literal["restored", "all"] = "restored"
    damping: Damping = 0.0


_DEFAULT = RefitSwaps()
_EPSILON = torch.finfo(torch.float32).eps
_ITERATIONS, _TOLERANCE = 60, 1e-4  # of the final least squares


class Standardised(NamedTuple):
    """A layer whose inputs have norm 1 and whose rows have no weight above 1.

    weight (rows, inputs) float64, 0 where the input is dead; gram (inputs, inputs) float32, with a diagonal ridge above
    float32 rounding, so that any columns are independent; units (rows, inputs) float64: the true weights are
    weight * units; alive (inputs,) bool, True where the input is not dead.
    """

    weight: torch.Tensor
    gram: torch.Tensor
    units: torch.Tensor
    alive: torch.Tensor


def refit_swaps(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: RefitSwaps = _DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Swap kept for pruned weights, within a row or group, until no swap lowers the error of its row.

    Arguments and errors: :class:`prunelib.methods.contract.Refine`.

    Safeguard: rows whose error would increase are left unchanged. This happens by rounding, or where ``damping``
    changes the objective. ``restored`` starts from ``extra.updated_weight``; ``all`` from the least-squares
    weights of ``mask``. The error is compared with that of ``extra.updated_weight``.

    Returns
    -------
    Refined
        With the least-squares weights; those of dead inputs are the model's. ``optimal``, only for ``all``: no swap
        lowers the error of a row, even with all its kept weights re-estimated, by more than 8 eps sqrt(inputs) of
        the sum of w_j^2 G_jj, with the eps of float32 (:mod:`prunelib.kernels.refit_swaps`); not said of rows whose
        inputs are too nearly dependent for a proof. With ``damping`` all this is about the damped error.
    """
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    before = starting_weights(weight, mask, extra)
    layer, group = standardise(weight, damped(gram, settings.damping)), pattern.swap_columns(weight.shape[1])
    results, x = _WAYS[settings.refit](layer, before, group, compute)
    after = kept_weights((x * layer.units).where(layer.alive, weight), results.mask.to(mask.device))
    ended = the_better(weight, gram, before, after, progress)
    taken = (ended.mask == after.mask).all(dim=1).cpu()
    optimal = results.optimal & taken if settings.refit == "all" else None
    return replace(ended, swaps=results.swaps * taken, sweeps=results.sweeps, optimal=optimal)


METHOD = Refiner(
    settings=RefitSwaps,
    refine=refit_swaps,
    summary=(
        "swap kept for pruned weights while that lowers the error; the restored weight is re-estimated at each swap, "
        "the others between sweeps (`refit: all`: all of them at each swap; slower, lower error)"
    ),
    source="this project, after Zimmer et al., [2512.10922](https://arxiv.org/abs/2512.10922), and Hazimeh & Mazumder, "
    "[1803.01454](https://arxiv.org/abs/1803.01454)",
    updates_weights=True,
    extra_inputs=("updated_weight",),
    workspace=Workspace(squares=8, weight_bytes=104),
)


def _swap_restored(
    layer: Standardised, before: KeptWeights, group: int, compute: Compute
) -> tuple[RowResults, torch.Tensor]:
    """Swap with the restored weight re-estimated; after all swaps, re-estimate all kept weights by least squares."""
    kernel = backend(layer.weight.device, "partial_refit_swaps", compute)
    start = (before.weight / layer.units).where(layer.alive, 0)
    swapped = kernel.swap_to_optimum(layer.weight, layer.gram, before.mask, start, group, compute.workers)
    results, x = _all_rows(swapped, before.mask)
    m = results.mask.to(x.device)
    return results, solve_on_support(layer.weight, layer.gram, m, x, _ITERATIONS, _TOLERANCE)


def _swap_all(
    layer: Standardised, before: KeptWeights, group: int, compute: Compute
) -> tuple[RowResults, torch.Tensor]:
    """Swap with all kept weights re-estimated, on the CPU: there is no GPU kernel."""
    layer_here = (each.cpu() for each in (layer.weight, layer.gram, before.mask))
    kernel = backend(torch.device("cpu"), "refit_swaps", compute)
    return _all_rows(kernel.swap_to_optimum(*layer_here, group, compute.workers), before.mask)


_WAYS = {"restored": _swap_restored, "all": _swap_all}


def _all_rows(
    finished: Iterator[tuple[slice, RowResults, torch.Tensor]], mask: torch.Tensor
) -> tuple[RowResults, torch.Tensor]:
    """Collect the results of all rows of a mask (rows, inputs), and their weights (rows, inputs) float64."""
    weights = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)

    def kept() -> Iterator[tuple[slice, RowResults]]:
        for rows, results, x in finished:
            weights[rows] = x.to(weights.device)
            yield rows, results

    return collect_rows(kept(), mask), weights


def standardise(weight: torch.Tensor, gram: torch.Tensor) -> Standardised:
    """Scale a weight (rows, inputs) and a Gram matrix (inputs, inputs); losses of a row scale with the row."""
    norms, inputs = input_norms(gram)
    scaled = weight.double() * norms
    size = scaled.abs().amax(dim=1, keepdim=True)
    size = size.where(size > 0, 1)
    ridge = 4 * _EPSILON * len(gram) ** 0.5
    correlation = gram.double() / inputs / inputs[:, None]
    correlation = ((correlation + correlation.T) / 2).fill_diagonal_(1 + ridge)
    return Standardised(scaled / size, correlation.float(), size / inputs, norms > 0)
