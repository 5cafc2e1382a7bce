"""Frank-Wolfe on the relaxation (Roux et al., arXiv 2510.13713, algorithm 1): M += step * (V - M), V a vertex.

R = (W - M*W) G is kept along: after a step by g along D it is R - g (D*W) G, so that one product an iteration gives the
gradient and the exact line search alike. Products are in float32; R is computed afresh, and gaps are, in float64.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from prunelib.algebra.linalg import product
from prunelib.kernels import backend
from prunelib.relaxation.problem import Relaxation, dual_gap, evaluate

_EPOCH = 50  # iterations from one exact evaluation to the next


class Segment(NamedTuple):
    """f along a step from m towards a vertex, f(m) - slope * s + curvature * s^2; both (problems,) float64."""

    slope: torch.Tensor
    curvature: torch.Tensor


StepRule = Callable[[int, Segment], torch.Tensor]
"""From the iteration, counted from 0, and the segment to the step (problems,), between 0 and 1."""


def open_loop(t: int, segment: Segment) -> torch.Tensor:
    """The paper's 2 / (t + 2)."""
    return torch.full_like(segment.slope, 2 / (t + 2))


def line_search(t: int, segment: Segment) -> torch.Tensor:  # noqa: ARG001 - a step rule
    """The minimum along the segment: slope / (2 curvature), and all of it where f bends no upwards before its end."""
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
    """One of ``every`` so many iterates (rows, inputs) float64, from ``mass`` on, and the last.

    A problem rests once its dual gap is at most ``tolerance`` times its relaxed loss.
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
    steps, threads = backend(w.device, "frank_wolfe"), problem.threads
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
