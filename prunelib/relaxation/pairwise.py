"""The relaxation solved by relaxed swaps, and the path from its optimum to a mask.

Along the path the shift d grows from the relaxation's to the whole diagonal of G. The losses of masks do not change,
but along the edges of the polytope f changes from convex to multilinear, whose minima are masks: relaxed swaps that
start at the relaxed optimum follow a minimum of f to a mask (as Zaslavskiy, Bach and Vert, IEEE PAMI 2009, do for
graph matching).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from prunelib.kernels import backend
from prunelib.kernels.relaxed_swaps.reference import Operands
from prunelib.relaxation.problem import Relaxation, evaluate

_STAGES = 16  # of the path
_SETTLED = 1e-4  # relative dual gap at which a stage of the path ends early
_PRICES = 20  # maximum number of trials
_LEAST_PRICE = 1e-3  # least initial price, relative to the mean absolute gradient
_SPENT = 1e-3  # tolerance of the mass bought at a price, relative to the budget


def relaxed(problem: Relaxation, mass: torch.Tensor, iterations: int, tolerance: float) -> Iterator[torch.Tensor]:
    """Yield iterates (rows, inputs) float64 from ``mass`` until dual gaps are at most ``tolerance`` of the losses.

    The mass of each group is unchanged; a group that spans rows distributes its budget among them. An iteration is a
    round of about an eighth as many pairs as a row has inputs.
    """
    if problem.problems == len(mass):
        yield _descend(problem, problem.shift[None], mass, None, tolerance, iterations)
    else:
        yield from _shared_out(problem, mass, iterations, tolerance)


def followed(problem: Relaxation, mass: torch.Tensor) -> torch.Tensor:
    """Return the end of the path from ``mass`` (rows, inputs) float64: nearly all masses are 0 or 1."""
    part = torch.linspace(0, 1, _STAGES + 1, dtype=torch.float64)[1:, None].to(problem.shift)
    shifts = problem.shift + part * (problem.gram.diagonal() - problem.shift)
    return _descend(problem, shifts, mass, None, _SETTLED, 1)


class _Purchase(NamedTuple):
    """The masses (rows, inputs) that all rows buy at a price, and their sum."""

    price: float
    mass: torch.Tensor
    spent: float


def _shared_out(problem: Relaxation, mass: torch.Tensor, iterations: int, tolerance: float) -> Iterator[torch.Tensor]:
    """Yield iterates for a group that spans rows, in search of the price at which the rows spend the budget.

    Each iterate is the mass that all rows buy at one price. The last one mixes the purchases at a price too low and one
    too high so that the budget is spent exactly.
    """
    _, gradient = evaluate(problem, mass)
    price = max(
        -float(gradient.reshape(-1).kthvalue(problem.keep).values),
        _LEAST_PRICE * float(problem.sum(gradient.abs())) / gradient.numel(),
    )
    known: dict[bool, _Purchase] = {}  # the last purchase over budget (True) and the last one within it (False)
    for tries in range(1, _PRICES + 1):
        mass = _descend(problem, problem.shift[None], mass, price, tolerance, iterations)
        yield mass
        bought = _Purchase(price, mass, float(problem.sum(mass)))
        known[bought.spent > problem.keep] = bought
        if len(known) == 2 and abs(bought.spent / problem.keep - 1) <= _SPENT:
            break
        price = _next_price(known, problem.keep, tries)
    if len(known) == 2:
        yield known[False].mass + _share(known, problem.keep) * (known[True].mass - known[False].mass)


def _next_price(known: dict[bool, _Purchase], budget: int, tries: int) -> float:
    """Return the next price: interpolation and bisection in turn; extrapolation if all purchases are on one side.

    The first extrapolation slightly overshoots a demand that falls with the cube root of the price; steps grow with
    ``tries``.
    """
    if len(known) == 2:
        share = _share(known, budget) if tries % 2 else 0.5
        return known[False].price + share * (known[True].price - known[False].price)
    ((too_much, only),) = known.items()
    beyond = 1.02 if too_much else 1 / 1.02
    return only.price * (beyond * min(max(only.spent / budget, 0.7), 1.4) ** 4) ** tries


def _share(known: dict[bool, _Purchase], budget: int) -> float:
    """Return the share of the larger purchase in the mixture with the smaller one that spends the budget."""
    return (budget - known[False].spent) / (known[True].spent - known[False].spent)


def _descend(
    problem: Relaxation,
    shifts: torch.Tensor,
    mass: torch.Tensor,
    price: float | None,
    tolerance: float,
    rounds: int,
) -> torch.Tensor:
    """Run the relaxed-swaps backend over all rows."""
    group, swaps = min(problem.size, mass.shape[1]), backend(mass.device, "relaxed_swaps", problem.compute)
    result = torch.empty_like(mass)
    operands = Operands(weight=problem.weight, gram=problem.gram, shifts=shifts, mass=mass, fixed=problem.fixed)
    for rows, part in swaps.descend(operands, group, price, tolerance, rounds, problem.compute.workers):
        result[rows] = part
    return result
