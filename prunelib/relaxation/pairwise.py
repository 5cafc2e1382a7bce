"""The relaxation solved by relaxed swaps, and the path from its optimum to a mask.

Along the path the shift d grows from the relaxation's to the whole diagonal of G. That changes the loss of no mask, but
takes f from convex to concave along the edges of the polytope, whose minima are masks; started from the relaxed
optimum, relaxed swaps follow a minimum of f to a mask (a convex-concave path as in Zaslavskiy, Bach and Vert, IEEE PAMI
2009, for graph matching).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from prunelib.kernels import engine
from prunelib.machine import machine
from prunelib.relaxation.problem import Relaxation, evaluate

_STAGES = 16  # of the path; 40 leave errors that are 0.1% lower
_SETTLED = 1e-4  # dual gap, relative, at which a stage of the path ends early
_PRICES = 12  # tried
_LEAST_PRICE = 1e-9  # in equilibrated units


class _Bought(NamedTuple):
    price: float
    mass: torch.Tensor


def relaxed(problem: Relaxation, mass: torch.Tensor, iterations: int, tolerance: float) -> Iterator[torch.Tensor]:
    """Iterates (rows, inputs) float64 from ``mass`` on; at the last one dual gaps are at most ``tolerance`` of losses.

    Every group keeps the mass it has. An iteration is a round of about an eighth as many pairs as a row has inputs.
    """
    if problem.problems == len(mass):
        yield _descend(problem, problem.shift[None], mass, None, tolerance, iterations)
    else:
        yield from _priced(problem, mass, iterations, tolerance)


def followed(problem: Relaxation, mass: torch.Tensor) -> torch.Tensor:
    """The end of the path that starts at ``mass`` (rows, inputs) float64: nearly all masses are 0 or 1."""
    part = torch.linspace(0, 1, _STAGES + 1, dtype=torch.float64)[1:, None].to(problem.shift)
    shifts = problem.shift + part * (problem.gram.diagonal() - problem.shift)
    return _descend(problem, shifts, mass, None, _SETTLED, 1)


def _priced(problem: Relaxation, mass: torch.Tensor, iterations: int, tolerance: float) -> Iterator[torch.Tensor]:
    """Iterates for a group that spans rows: each row buys mass at one price, which is sought so that they spend it all.

    Between a price too low and one too high, the mixture of both optima that spends the budget is the last iterate.
    """
    _, gradient = evaluate(problem, mass)
    price = max(-float(gradient.reshape(-1).kthvalue(problem.keep).values), _LEAST_PRICE)
    cheap = dear = None
    for _ in range(_PRICES):
        mass = _descend(problem, problem.shift[None], mass, price, tolerance, iterations)
        yield mass
        if mass.sum() > problem.keep:
            cheap = _Bought(price, mass)
        else:
            dear = _Bought(price, mass)
        price = _between(cheap, dear)
    if cheap and dear:
        yield _mixture(cheap.mass, dear.mass, problem.keep)


def _between(cheap: _Bought | None, dear: _Bought | None) -> float:
    """The next price to try: the middle, or half or twice the only one."""
    if cheap is None or dear is None:
        return dear.price / 2 if dear else 2 * cheap.price
    return (cheap.price + dear.price) / 2


def _mixture(cheap, dear, budget):
    share = (budget - dear.sum()) / (cheap.sum() - dear.sum())
    return dear + share * (cheap - dear)


def _descend(
    problem: Relaxation,
    shifts: torch.Tensor,
    mass: torch.Tensor,
    price: float | None,
    tolerance: float,
    rounds: int,
) -> torch.Tensor:
    """Run the engine for relaxed swaps over all rows."""
    group = min(problem.size, mass.shape[1])
    result = torch.empty_like(mass)
    swaps = engine(mass.device, "relaxed_swaps")
    for rows, part in swaps.descend(
        problem.weight, problem.gram, shifts, mass, problem.fixed, group, price, tolerance, rounds, machine().threads
    ):
        result[rows] = part
    return result
