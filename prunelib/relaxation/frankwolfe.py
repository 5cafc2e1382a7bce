"""Frank-Wolfe on the relaxation (Roux et al., arXiv 2510.13713, algorithm 1): M += step * (V - M), V a vertex.

R = (W - M*W) G is updated incrementally: after a step g along D it is R - g (D*W) G, so that one product per iteration
serves both the gradient and the exact line search. Products are in float32; R is recomputed at intervals, and gaps are
computed, in float64.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from prunelib.algebra.linalg import product
from prunelib.kernels import backend
from prunelib.relaxation.problem import Relaxation, dual_gap, evaluate

_EPOCH = 50  # iterations from one exact evaluation to the next


class Segment(NamedTuple):
    """f at a step s from m towards a vertex: f(m) - slope * s + curvature * s^2; both (problems,) float64."""

    slope: torch.Tensor
    curvature: torch.Tensor


StepRule = Callable[[int, Segment], torch.Tensor]
"""A step rule: maps the iteration, counted from 0, and the segment to the step (problems,), between 0 and 1."""


def open_loop(t: int, segment: Segment) -> torch.Tensor:
    """Return the paper's step 2 / (t + 2)."""
    return torch.full_like(segment.slope, 2 / (t + 2))


def line_search(t: int, segment: Segment) -> torch.Tensor:  # noqa: ARG001 - a step rule
    """Return the minimiser along the segment: slope / (2 curvature), or 1 if f still falls at its end."""
    whole = segment.slope >= 2 * segment.curvature
    return (segment.slope / (2 * segment.curvature).masked_fill(whole, 1)).masked_fill(whole, 1).clamp(0, 1)


def iterates(
    problem: Relaxation,
    mass: torch.Tensor,
    step_rule: StepRule,
    iterations: int,
    tolerance: float,
    every: int = _EPOCH,
) -> Iterator[torch.Tensor]:
    """Yield every ``every``-th iterate (rows, inputs) float64, starting from ``mass``, and the last one.

    A problem is no longer updated once its dual gap is at most ``tolerance`` times its relaxed loss.
    """
    open_problems = torch.arange(problem.problems, device=mass.device)
    mass = mass.clone()
    for start in range(0, iterations, every):
        part, rows = problem.only(open_problems), problem.rows(open_problems)
        mass[rows] = _advance(part, mass[rows], step_rule, range(start, min(start + every, iterations)))
        yield mass.clone()
        losses, gradient = evaluate(part, mass[rows])
        open_problems = open_problems[dual_gap(part, mass[rows], gradient) > tolerance * losses]
        if not len(open_problems):
            return


def _advance(problem: Relaxation, mass: torch.Tensor, step_rule: StepRule, iterations: range) -> torch.Tensor:
    w, G, M = problem.weight, problem.gram, mass.float()
    steps, threads = backend(w.device, "frank_wolfe", problem.compute), problem.compute.workers
    linear = (problem.shift * w.double() ** 2).float()  # d w^2
    R = product((1 - mass) * w.double(), G.double()).float()
    for t in iterations:
        D, pruned, slope = steps.direction(w, linear, R, M, problem.fixed, problem.size, problem.keep, threads)
        change = product(pruned, G)
        segment = Segment(problem.sum(slope), problem.sum(steps.curvature(w, linear, D, change, threads)))
        step = step_rule(t, segment).float().expand(len(w))[:, None]
        M.addcmul_(step, D)
        R.addcmul_(step, change, value=-1)
    return M.double().clamp(0, 1)
