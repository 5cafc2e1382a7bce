"""ALPS (Meng et al., "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for LLMs", arXiv 2406.07831).

Minimises the output error (W - X) G (W - X)^T subject to X = Z, with Z in the set of matrices of the pattern, by the
alternating direction method of multipliers, in units where every input has norm 1 (section 3.2):

    X  = (W G - V + rho Z) (G + rho I)^-1
    Z  = the largest |X + V / rho| of each group of the pattern, the others 0
    V += rho (X - Z)

Unlike in ADMM with a schedule, the full sparsity holds from the start, and the penalty rho grows until the mask no
longer changes. The largest |X| are kept, and conjugate gradients minimise the error over them (section 3.3).

The rule for rho, the order of steps and the damping are those of the authors' script.
"""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field

from prunelib.algebra.least_squares import solve_on_support
from prunelib.algebra.linalg import eigen, product
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
from prunelib.methods.kept_weights import KeptWeights, starting_weights, the_better
from prunelib.methods.workspace import Workspace
from prunelib.runtime.compute import AUTO, Compute
from prunelib.settings import MOST_DAMPING, Damping, Iterations

_BETWEEN_UPDATES = 3  # iterations from one update of rho to the next
_GROWTH = ((0.1, 1.3), (0.005, 1.2))  # a share of kept weights that changed, and the factor of rho above it
_LEAST_GROWTH = 1.1  # the factor where fewer changed
_FALL = 5.0  # rho is divided by this while its first value turns out too large
_FEW, _PATIENCE = 0.0003, 30  # fewer changes than this share end the iterations, after so many
_MOST = 1e6  # of rho
_TOLERANCE = 1e-4


class ALPS(MethodSettings):
    """Settings of ALPS; the defaults are those of the authors' script.

    Attributes
    ----------
    iterations
        Maximum number of updates of X, Z and V.
    rho
        The first penalty for X != Z, relative to the diagonal of G.
    damping
        Added to the diagonal of G, relative to its mean.
    refit_iterations
        Maximum number of conjugate gradient iterations over the kept weights.
    """

    method: Literal["alps"] = "alps"
    iterations: Iterations = 300
    rho: Annotated[float, Field(gt=0, le=MOST_DAMPING)] = 0.1
    damping: Damping = 0.01
    refit_iterations: Iterations = 10


_DEFAULT = ALPS()


def alps(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: ALPS = _DEFAULT,
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
    noisy = damped(gram.double(), settings.damping)
    _, units = input_norms(noisy)
    live = gram.diagonal() > 0
    # Damping gives dead inputs a norm, by which their weights would be kept in place of live ones.
    X = _alternate(weight.double().where(live, 0) * units, noisy / torch.outer(units, units), pattern, settings)
    chosen = select(X.abs(), pattern)
    start = (X / units).where(live, weight).masked_fill(~chosen, 0)
    after = solve_on_support(weight, noisy, chosen, start, settings.refit_iterations, _TOLERANCE)
    return the_better(weight, gram, before, KeptWeights(chosen, after), progress)


METHOD = Refiner(
    settings=ALPS,
    refine=alps,
    summary="choose mask and weights anew by alternating directions with a growing penalty, then least squares",
    source="Meng et al., [2406.07831](https://arxiv.org/abs/2406.07831)",
    updates_weights=True,
    extra_inputs=("updated_weight",),
    workspace=Workspace(squares=20, weight_bytes=96),
)


class _Penalty(NamedTuple):
    """The penalty rho, and whether it has grown, after which it never falls."""

    rho: float
    grown: bool = False

    def after(self, changed: int, kept: int) -> "_Penalty":
        """Return the next penalty, given how many of the kept weights of the mask changed."""
        for share, factor in _GROWTH:
            if changed > share * kept:
                return _Penalty(min(self.rho * factor, _MOST), grown=True)
        if changed and self.grown:
            return _Penalty(min(self.rho * _LEAST_GROWTH, _MOST), grown=True)
        return self if self.grown else _Penalty(self.rho / _FALL)


def _alternate(W: torch.Tensor, G: torch.Tensor, pattern: Pattern, settings: ALPS) -> torch.Tensor:
    """Return X (rows, inputs) float32, in units where the diagonal of G is 1.

    W, G and its inverse are computed in float64, the products of the iterations in float32.
    """
    values, vectors = eigen(G)

    def inverse(rho: float) -> torch.Tensor:
        return product(vectors / (values.clamp(min=0) + rho), vectors.T).float()

    target, dense = product(W, G).float(), W.float()
    seen = select(dense.abs(), pattern)
    kept, penalty = int(seen.sum()), _Penalty(settings.rho)
    X, V, solve = dense, torch.zeros_like(dense), inverse(penalty.rho)
    Z = first = dense.masked_fill(~seen, 0)
    for t in range(1, settings.iterations + 1):
        X = product(target - V + penalty.rho * Z, solve)
        shifted = X + V / penalty.rho
        mask = select(shifted.abs(), pattern)
        Z = shifted.masked_fill(~mask, 0)
        V += penalty.rho * (X - Z)
        if t % _BETWEEN_UPDATES:
            continue
        changed, seen = int((mask != seen).sum()), mask
        if (changed == 0 and penalty.grown) or (t > _PATIENCE and changed < _FEW * kept):
            break
        previous, penalty = penalty, penalty.after(changed, kept)
        if changed and penalty.rho < previous.rho:  # it was too large: begin again
            Z, V = first, torch.zeros_like(dense)
        solve = inverse(penalty.rho)
    return X
