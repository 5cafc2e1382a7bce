"""SparseFW: relax the masks, optimise by Frank-Wolfe, round (Roux et al., "Don't Be Greedy, Just Relax!", 2510.13713).

The paper's own method is ``{step: open_loop, relaxation: plain, rounding: largest, alpha: 0.9, tolerance: 0}``. The
defaults here lower the error further: steps along edges of the polytope, a relaxation as tight as convexity allows, and
a path from its optimum to a mask instead of thresholding.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib.algebra.objective import checked_layer, damped, row_losses
from prunelib.masks.checks import check_mask
from prunelib.masks.patterns import Pattern
from prunelib.masks.selection import select
from prunelib.methods.contract import (
    NOTHING_ELSE,
    ExtraInputs,
    MethodSettings,
    Progress,
    Refined,
    Refiner,
    silent,
)
from prunelib.methods.workspace import Workspace
from prunelib.relaxation import frankwolfe, pairwise
from prunelib.relaxation.convexity import plain_share, tight_share
from prunelib.relaxation.problem import Relaxation, lower_bound, relax
from prunelib.runtime.compute import AUTO, Compute
from prunelib.settings import Damping, Iterations

_BLOCK_ROWS = 1024  # per chunk, if rows do not compete


class SparseFW(MethodSettings):
    """Settings of SparseFW.

    Attributes
    ----------
    step
        ``open_loop``: the paper's 2 / (t + 2). ``line_search``: exact, for each independent problem. ``pairwise``: mass
        moves from one weight to another, which reaches the same dual gap in a small part of the time.
    relaxation
        ``plain``: the paper's. ``tight``: part of the Gram matrix's diagonal is made linear, which leaves the errors of
        masks unchanged and raises the relaxed errors towards them.
    rounding
        ``largest``: keep the largest masses of each group. ``path``: move masses to 0 and 1 gradually.
    alpha
        The share of each group's kept weights that is fixed as kept: those with the highest Wanda scores.
    iterations
        Maximum number of iterations; one of ``pairwise`` moves about an eighth as many pairs as a row has inputs.
    tolerance
        A problem is solved when its dual gap is at most this share of its relaxed error.
    damping
        Optimise for G + damping * mean(diag G) * I. Errors and bound are those of G.
    """

    method: Literal["sparsefw"] = "sparsefw"
    step: Literal["open_loop", "line_search", "pairwise"] = "pairwise"
    relaxation: Literal["plain", "tight"] = "tight"
    rounding: Literal["largest", "path"] = "path"
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.0
    iterations: Iterations = 2000
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.01
    damping: Damping = 0.0


_DEFAULT = SparseFW()


def sparsefw(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: SparseFW = _DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Solve the relaxation, starting at the mask, and round it; keep the mask if no rounded iterate is better.

    Takes a weight (rows, inputs) in any float dtype, its Gram matrix (inputs, inputs) float32 and a mask (rows, inputs)
    bool with the exact counts of the pattern; arguments and errors in full: :class:`prunelib.methods.contract.Refine`.

    Returns
    -------
    Refined
        With the best mask of all rounded iterates and the highest ``bound``. For groups within rows, no row's error
        increases; for ``PerLayer``, the matrix's error does not increase.
    """
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    fixed = salient(weight, gram, mask, pattern, settings.alpha)
    share_of = tight_share if settings.relaxation == "tight" else plain_share
    measured = optimised = relax(weight, gram, share_of(gram), fixed, pattern, compute)
    if settings.damping:
        noisy = damped(gram, settings.damping)
        optimised = relax(weight, noisy, share_of(noisy), fixed, pattern, compute)
    parts = []
    for problems in torch.arange(measured.problems).split(_BLOCK_ROWS):
        rows = measured.rows(problems)
        best = _Best(measured.only(problems), weight[rows], gram, mask[rows], pattern)
        _search(best, optimised.only(problems), settings)
        progress(len(rows), float(best.loss_before.sum()), float(best.losses.sum()))
        parts.append(best)
    return Refined(
        mask=torch.cat([best.mask for best in parts]),
        loss_before=torch.cat([best.loss_before for best in parts]),
        loss_after=torch.cat([best.losses for best in parts]),
        bound=sum(float(best.bound.sum()) for best in parts),
    )


METHOD = Refiner(
    settings=SparseFW,
    refine=sparsefw,
    summary="minimise a convex relaxation, whose optimum bounds the error of every mask from below, and round it",
    source="Roux et al., [2510.13713](https://arxiv.org/abs/2510.13713)",
    workspace=Workspace(squares=9, weight_bytes=32),
)


def salient(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, pattern: Pattern, alpha: float
) -> torch.Tensor:
    """Return the floor(alpha * keep) kept weights of each group with largest |w_j| sqrt(G_jj): (rows, inputs) bool."""
    size, keep = pattern.groups(*mask.shape)
    saliency = weight.double().abs() * gram.diagonal().double().sqrt()
    ranked = saliency.masked_fill(~mask, -1).reshape(-1, size).sort(dim=1, descending=True, stable=True).indices
    fixed = torch.zeros_like(ranked, dtype=torch.bool)
    fixed.scatter_(1, ranked[:, : int(keep * Fraction(str(alpha)))], value=True)
    return fixed.reshape(mask.shape)


def rounded(mass: torch.Tensor, fixed: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Keep the fixed weights, then the largest masses of each group: exact counts, ties to the lower position."""
    return select(mass.masked_fill(fixed, torch.inf), pattern)


class _Best:
    """The best mask found so far for each independent problem, and the highest bound.

    ``mask`` (rows, inputs); ``loss_before`` and ``losses`` (rows,) float64, of the initial mask and of the best one;
    ``bound`` (problems,) float64.
    """

    def __init__(
        self, problem: Relaxation, weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, pattern: Pattern
    ) -> None:
        self._problem, self._weight, self._gram, self._pattern = problem, weight, gram, pattern
        self.mask, self.losses = mask, row_losses(weight, gram, mask)
        self.loss_before, self.bound = self.losses, torch.zeros(problem.problems).to(self.losses)

    def offer(self, mass: torch.Tensor) -> None:
        """Round masses (rows, inputs), and store the mask for problems where its loss is lower."""
        mask = rounded(mass, self._problem.fixed, self._pattern)
        losses = row_losses(self._weight, self._gram, mask)
        lower = (self._problem.sum(losses) < self._problem.sum(self.losses)).expand(len(mask))
        self.mask, self.losses = mask.where(lower[:, None], self.mask), losses.where(lower, self.losses)

    def certify(self, mass: torch.Tensor) -> None:
        """Raise the bound to that of the tangent at masses (rows, inputs)."""
        self.bound = torch.maximum(self.bound, lower_bound(self._problem, mass))


def _search(best: _Best, problem: Relaxation, settings: SparseFW) -> None:
    """Round every iterate of the relaxation and certify its bound; then follow the path from the last iterate."""
    last = best.mask.double()
    for mass in _iterates(problem, last, settings):
        best.certify(mass)
        best.offer(mass)
        last = mass
    if settings.rounding == "path":
        best.offer(pairwise.followed(problem, last))


def _iterates(problem: Relaxation, mass: torch.Tensor, settings: SparseFW) -> Iterator[torch.Tensor]:
    if settings.step == "pairwise":
        return pairwise.relaxed(problem, mass, settings.iterations, settings.tolerance)
    rule = frankwolfe.open_loop if settings.step == "open_loop" else frankwolfe.line_search
    return frankwolfe.iterates(problem, mass, rule, settings.iterations, settings.tolerance)
