"""ADMM: mask and weights in turn (Boza, "Fast and Effective Weight Update for Pruned LLMs", arXiv 2401.02938).

Minimises the output error (W - X) G (W - X)^T subject to X = Z, with Z in the set of matrices of the pattern, by the
alternating direction method of multipliers with scaled dual U, in units where every input has norm 1:

    Z  = the largest |X + U| of each group of the pattern, the others 0
    U += X - Z
    X  = (W G + rho (Z - U)) (G + rho I)^-1

Over the first T iterations, sparsity grows by the cubic schedule s_t = s (1 - (1 - t/T)^3); afterwards the mask is
fixed and the weights converge. G is damped as in the authors' script.
"""

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator

from prunelib.algebra.linalg import inverse, product
from prunelib.algebra.objective import checked_layer, damped, input_norms
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
from prunelib.methods.kept_weights import kept_weights, starting_weights, the_better
from prunelib.methods.workspace import Workspace
from prunelib.runtime.compute import AUTO, Compute
from prunelib.settings import MOST_DAMPING, Damping, Iterations


class ADMM(MethodSettings):
    """Settings of ADMM; the defaults are those of the paper and its script.

    Attributes
    ----------
    iterations
        Number of updates of Z, U and X.
    schedule
        The paper's k_s (T above): iterations in which the mask is chosen, at most ``iterations``.
    rho
        The penalty for X != Z, relative to the diagonal of G.
    damping
        Added to the diagonal of G, relative to it.
    """

    method: Literal["admm"] = "admm"
    iterations: Iterations = 20
    schedule: Iterations = 15
    rho: Annotated[float, Field(gt=0, le=MOST_DAMPING)] = 1.0
    damping: Damping = 0.1

    @model_validator(mode="after")
    def _schedule_ends(self) -> Self:
        if self.schedule > self.iterations:
            raise ValueError(f"schedule must be at most iterations: {self.schedule} of {self.iterations}")
        return self


_DEFAULT = ADMM()


def admm(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: ADMM = _DEFAULT,
    progress: Progress = silent,
    extra: ExtraInputs = NOTHING_ELSE,
    compute: Compute = AUTO,
) -> Refined:
    """Choose a new mask and new weights; the given ones serve only for comparison.

    Arguments and errors: :class:`prunelib.methods.contract.Refine`.

    Safeguard (not in the paper): rows whose error would increase are left unchanged (per layer: the whole matrix).
    Weights of dead inputs are the model's.
    """
    weight, gram = checked_layer(weight, gram)
    check_mask(mask, weight, pattern)
    before = starting_weights(weight, mask, extra)
    norms, units = input_norms(gram)
    found, scaled = _alternate(weight.double() * norms, gram.double() / torch.outer(units, units), pattern, settings)
    after = kept_weights((scaled / units).where(norms > 0, weight), found)
    return the_better(weight, gram, before, after, progress)


METHOD = Refiner(
    settings=ADMM,
    refine=admm,
    summary="choose mask and weights anew by the alternating direction method of multipliers",
    source="Boza, [2401.02938](https://arxiv.org/abs/2401.02938)",
    updates_weights=True,
    extra_inputs=("updated_weight",),
    workspace=Workspace(squares=9, weight_bytes=68),
)


def _alternate(W: torch.Tensor, G: torch.Tensor, pattern: Pattern, settings: ADMM) -> tuple[torch.Tensor, ...]:
    """Return mask (rows, inputs) bool and weights Z (rows, inputs) float32, scaled by their inputs' norms.

    W, G and the inverse are computed in float64, the products of the iterations in float32.
    """
    G, rho = damped(G, settings.damping), settings.rho
    target, solve = product(W, G).float(), inverse(G + rho * torch.eye(len(G), dtype=G.dtype, device=G.device)).float()
    X, U = W.float(), torch.zeros_like(target)
    mask = torch.ones_like(X, dtype=torch.bool)
    for t in range(1, settings.iterations + 1):
        if t <= settings.schedule:
            mask = _largest((X + U).abs(), pattern, share=1 - (1 - t / settings.schedule) ** 3)
        Z = (X + U).masked_fill(~mask, 0)
        U += X - Z
        X = product(target + rho * (Z - U), solve)
    return mask, (X + U).masked_fill(~mask, 0)


def _largest(scores: torch.Tensor, pattern: Pattern, share: float) -> torch.Tensor:
    """Prune the lowest scores to a share of the pattern's sparsity, except those that the full pattern would keep.

    For N:M, the others compete in the whole matrix, as in the authors' script.
    """
    mask = select(scores, pattern)
    if share == 1 or mask.all():
        return mask
    lighter = pattern.with_sparsity(share * pattern.mean_sparsity)
    return select(scores.masked_fill(mask, torch.inf), lighter)
