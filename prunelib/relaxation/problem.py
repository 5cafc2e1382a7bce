"""The relaxed problem (Roux et al., arXiv 2510.13713, equations 4 to 7) in masses m (rows, inputs) float64.

    f(m) = p^T (G - Diag(d)) p + sum_j d_j w_j^2 (1 - m_j)   with   p = (1 - m) * w

summed over rows. On masks, where m_j^2 = m_j, this is the pruning error whatever the shift d; with d = 0 it is the
paper's relaxation.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch

from prunelib.algebra.linalg import product
from prunelib.kernels.frank_wolfe import reference as frank_wolfe
from prunelib.kernels.scaling import equilibrate
from prunelib.masks.patterns import Pattern
from prunelib.runtime.compute import AUTO, Compute
from prunelib.runtime.threads import one_thread

_EPSILON = torch.finfo(torch.float64).eps


class Relaxation(NamedTuple):
    """The relaxed problem of some rows, in equilibrated units.

    Attributes
    ----------
    weight, gram
        (rows, inputs) and (inputs, inputs) float32.
    shift
        d, (inputs,) float64.
    fixed
        (rows, inputs) bool: weights fixed as kept.
    loss_scale
        (rows,) float64: factor from the losses of a row to those of the layer.
    size, keep
        Groups of ``size`` consecutive positions; the masses of each sum to at most ``keep``.
    compute
        Threads and kernels.
    """

    weight: torch.Tensor
    gram: torch.Tensor
    shift: torch.Tensor
    fixed: torch.Tensor
    loss_scale: torch.Tensor
    size: int
    keep: int
    compute: Compute

    @property
    def problems(self) -> int:
        """The number of independent problems: one per row, or one if a group spans several rows."""
        return len(self.weight) if self.size <= self.weight.shape[1] else 1

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum values of rows, positions or groups over each independent problem: (problems,) float64."""
        with one_thread() if self.problems == 1 else nullcontext():  # torch splits a single long sum over threads
            return values.reshape(self.problems, -1).sum(dim=1, dtype=torch.float64)

    def only(self, problems: torch.Tensor) -> "Relaxation":
        """Return the relaxation restricted to the independent problems with these indices."""
        rows = self.rows(problems)
        return self._replace(weight=self.weight[rows], fixed=self.fixed[rows], loss_scale=self.loss_scale[rows])

    def rows(self, problems: torch.Tensor) -> torch.Tensor:
        """Return the indices of the rows that belong to these problems."""
        return problems if self.problems == len(self.weight) else torch.arange(len(self.weight))


def relax(
    weight: torch.Tensor,
    gram: torch.Tensor,
    share: torch.Tensor,
    fixed: torch.Tensor,
    pattern: Pattern,
    compute: Compute = AUTO,
) -> Relaxation:
    """Return the relaxation of a layer's weight (rows, inputs) and Gram matrix (inputs, inputs).

    Parameters
    ----------
    share
        (inputs,) float64: d_j / G_jj.
    """
    scaled = equilibrate(weight, gram)
    size, keep = pattern.groups(*weight.shape)
    loss_scale = scaled.loss_scale
    if size > weight.shape[1]:  # rows compete: one scale for all
        of_rows = loss_scale.where(scaled.weight.any(dim=1), 0)  # the scale of a zero row is arbitrary
        largest = of_rows.max().where(of_rows.any(), 1)
        scaled = scaled._replace(weight=(scaled.weight * (loss_scale / largest).sqrt()[:, None]).float())
        loss_scale = largest.expand(len(weight))
    shift = share * scaled.gram.diagonal().double()
    return Relaxation(scaled.weight, scaled.gram, shift, fixed, loss_scale, size, keep, compute)


def evaluate(problem: Relaxation, mass: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the relaxed losses f (problems,) and their gradient (rows, inputs), float64, at masses (rows, inputs)."""
    w = problem.weight.double()
    c = product((1 - mass) * w, problem.gram.double())
    losses = (1 - mass) * w * (c + problem.shift * w * mass)
    return problem.sum(losses), w * (problem.shift * w * (1 - 2 * mass) - 2 * c)


def vertex(problem: Relaxation, gradient: torch.Tensor) -> torch.Tensor:
    """Return argmin <gradient, v> over the polytope (the linear minimisation oracle), (rows, inputs), gradient's dtype.

    It is 1 at the ``keep`` most negative entries of each group, only if negative, after the fixed ones.
    """
    return frank_wolfe.vertex(gradient, problem.fixed, problem.size, problem.keep)


def dual_gap(problem: Relaxation, mass: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return the largest <gradient, m - v> over the polytope, (problems,): an upper bound on f(m) - min f."""
    return problem.sum(gradient * (mass - vertex(problem, gradient)))


def lower_bound(problem: Relaxation, mass: torch.Tensor) -> torch.Tensor:
    """Return a lower bound on the pruning error of any mask, (problems,) float64: min f(m) + <gradient, v - m> over v.

    f is convex, so that the loss of any mask v is at least the tangent of f at m. The minimum is over masks that keep
    exactly ``keep``, ignoring fixed weights; it may be higher than over the polytope of :func:`vertex`. A bound on the
    rounding error is subtracted.
    """
    losses, gradient = evaluate(problem, mass)
    smallest = gradient.reshape(-1, problem.size).topk(problem.keep, dim=1, largest=False, sorted=False).values
    with one_thread():  # as in Relaxation.sum
        least = smallest.sum(dim=1)
    bound = losses - problem.sum(gradient * mass) + problem.sum(least) - _rounding(problem)
    return bound.clamp(min=0) * problem.loss_scale[: problem.problems]


def _rounding(problem: Relaxation) -> torch.Tensor:
    """Return a bound on the float64 rounding error of f and its tangent, (problems,): |G_ij| <= sqrt(G_ii G_jj)."""
    energy = problem.weight.double().abs() * problem.gram.diagonal().double().sqrt()
    return 8 * energy.shape[1] * _EPSILON * problem.sum(energy.sum(dim=1) ** 2)
