"""SparseSwaps: exact 1-swaps from the Gram matrix, row by row (Zimmer et al., arXiv 2512.10922, algorithm 1).

Options beyond the paper, against overfitting the calibration tokens: decide swaps on a damped Gram matrix, or stop a
row when its loss on held-out tokens rises.
"""

from dataclasses import replace
from typing import Literal

import torch

from prunelib.algebra.objective import checked_layer, damped, row_losses
from prunelib.errors import ParamsError
from prunelib.kernels import backend
from prunelib.kernels.early_stopping import swap_until_held_out_rises
from prunelib.kernels.interface import RowResults
from prunelib.kernels.results import Finished, collect_rows, collect_with_progress, unscaled
from prunelib.kernels.scaling import Equilibrated, equilibrate
from prunelib.kernels.verification import verified
from prunelib.masks.checks import check_mask
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import NOTHING_ELSE, ExtraInputs, MethodSettings, Progress, Refined, Refiner, silent
from prunelib.runtime.compute import AUTO, Compute
from prunelib.settings import Count, Damping


class SparseSwaps(MethodSettings):
    """Settings of SparseSwaps.

    Attributes
    ----------
    max_swaps
        The paper's T: maximum number of swaps per row, each the best one. None: until no swap improves any row; over
        whole rows by sweeps, which are faster than best swaps, and within groups by best swaps, which end lower there.
    damping
        Swaps are decided, and progress is reported, on G + damping * mean(diag G) * I; the returned losses are on G,
        where a swap may raise the error. An optimal row is then optimal for the damped problem.
    early_stopping_interval
        Number of best swaps between measurements of a row's loss on held-out tokens; if it has risen, the row returns
        to its best mask and stops. None: no measurements.
    """

    method: Literal["sparseswaps"] = "sparseswaps"
    max_swaps: Count | None = None
    damping: Damping = 0.0
    early_stopping_interval: Count | None = None

    @property
    def needs_held_out(self) -> bool:
        """Whether it stops early."""
        return self.early_stopping_interval is not None


_DEFAULT = SparseSwaps()


def sparseswaps(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: SparseSwaps = _DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Swap kept for pruned weights, within a row or a group of M, as long as that lowers the pruning error.

    Takes a weight (rows, inputs) in any float dtype, its Gram matrix (inputs, inputs) float32 and a mask (rows, inputs)
    bool with the exact counts of the pattern; arguments and errors in full: :class:`prunelib.methods.contract.Refine`.

    Returns
    -------
    Refined
        ``optimal``: no swap lowers the row's error by more than the bound of :mod:`prunelib.kernels.verification`, a
        millionth of it.

    Raises
    ------
    ParamsError
        If ``early_stopping_interval`` is set and ``extra`` has no ``held_out_gram``.

    Examples
    --------
    >>> weight, mask = torch.tensor([[2.0, 2.0, 1.0, 1.5]]), torch.tensor([[True, True, False, False]])
    >>> inputs = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    >>> gram, pattern = prunelib.gram_matrix(inputs), prunelib.NOfM(keep=2, group=4)
    >>> refined = prunelib.sparseswaps(weight, gram, mask, pattern)
    >>> prunelib.pruning_error(weight, gram, refined.mask) <= prunelib.pruning_error(weight, gram, mask)
    True
    >>> bool(refined.optimal.all())
    True
    """
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    scaled = equilibrate(weight, damped(gram, settings.damping))
    group = pattern.swap_columns(weight.shape[1])
    if settings.early_stopping_interval is None:
        finished = _swap(scaled, mask, group, settings.max_swaps, compute)
    else:
        finished = _swap_until_held_out_rises(scaled, mask, group, settings, weight, extra.held_out_gram, compute)
    found = collect_with_progress(unscaled(finished, scaled.loss_scale), mask, progress)
    found = replace(found, optimal=verified(scaled, weight, found, group))
    return _with_losses_on(found, weight, gram, mask) if settings.damping else found


METHOD = Refiner(
    settings=SparseSwaps,
    refine=sparseswaps,
    summary=(
        "swap kept for pruned weights while that lowers the error: at most `max_swaps` per row, always the best one "
        "next, or until no swap helps (the 1-swap optimum); `damping` and `early_stopping_interval` guard against "
        "overfitting"
    ),
    source="Zimmer et al., [2512.10922](https://arxiv.org/abs/2512.10922)",
    extra_inputs=("held_out_gram",),
    accepts_cpu_gram=True,
)


def _with_losses_on(found: Refined, weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor) -> Refined:
    """Return ``found`` with the losses of ``mask`` and of the new mask on a Gram matrix (inputs, inputs)."""
    before, after = (row_losses(weight, gram, m).cpu() for m in (mask, found.mask))
    return replace(found, loss_before=before, loss_after=after)


def _swap(scaled: Equilibrated, mask: torch.Tensor, group: int, max_swaps: int | None, compute: Compute) -> Finished:
    kernels = backend(mask.device, "swaps", compute)
    problem = (scaled.weight, scaled.gram, mask, group)
    if max_swaps is None:
        return kernels.swap_to_optimum(*problem, compute.workers)  # type: ignore[no-any-return]
    return kernels.swap_best(*problem, max_swaps, compute.workers)  # type: ignore[no-any-return]


def _swap_until_held_out_rises(
    scaled: Equilibrated,
    mask: torch.Tensor,
    group: int,
    settings: SparseSwaps,
    weight: torch.Tensor,
    held_out_gram: torch.Tensor | None,
    compute: Compute,
) -> Finished:
    if held_out_gram is None or settings.early_stopping_interval is None:
        raise ParamsError(
            f"early_stopping_interval = {settings.early_stopping_interval}: there is no Gram matrix of held-out tokens"
        )
    checked_layer(weight, held_out_gram)

    def swap_best(rows: torch.Tensor, masks: torch.Tensor, limit: int) -> RowResults:
        part = Equilibrated(scaled.weight[rows], scaled.gram, scaled.loss_scale[rows])
        return collect_rows(_swap(part, masks, group, limit, compute), masks)

    return swap_until_held_out_rises(
        swap_best, mask, weight, held_out_gram, settings.early_stopping_interval, settings.max_swaps
    )
