"""Least squares on the support of a mask, all rows at once (as in ALPS, arXiv 2406.07831, section 3.3).

For a row w of the model and weights x that are 0 outside the mask, the output error is (w - x)^T G (w - x): a quadratic
over the kept positions S, whose minimum solves G_SS x_S = (G w)_S. Conjugate gradients solve this for all rows with one
product (rows, inputs) x (inputs, inputs) per iteration, without forming a system for each row.

Inputs are scaled to norm 1, so that the diagonal of G is 1: this is the same as conjugate gradients with the diagonal
of G as preconditioner. Products are in float32, scalars in float64.
"""

from typing import NamedTuple

import torch

from prunelib.algebra.linalg import product
from prunelib.algebra.objective import input_norms

_EPSILON = torch.finfo(torch.float32).eps
_SPARSE = 0.75  # share of active rows at or below which finished rows are dropped, which copies the rest


class _Rows(NamedTuple):
    """The solver state of the active rows, and of some finished ones.

    row (n,) is their index in the matrix; pruned, residual r and direction p are (n, inputs); energy is r^T r, and done
    the energy at which a row is finished, both (n,) float64.
    """

    row: torch.Tensor
    pruned: torch.Tensor
    residual: torch.Tensor
    direction: torch.Tensor
    energy: torch.Tensor
    done: torch.Tensor


def solve_on_support(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    start: torch.Tensor,
    iterations: int,
    tolerance: float,
) -> torch.Tensor:
    """Minimise the error (w - x)^T G (w - x) over the kept weights.

    The error falls with every iteration, up to float32 rounding: from a start at (nearly) the minimum, the result can
    be worse in the last digits (:func:`prunelib.methods.kept_weights.the_better`). If G is singular, the result is one
    of many minima; weights of dead inputs are unchanged.

    Parameters
    ----------
    weight
        (rows, inputs), the model's, any float dtype.
    gram
        (inputs, inputs), sum over tokens of x x^T, or another matrix that weights the error.
    mask
        (rows, inputs) bool, True = kept, with any counts.
    start
        (rows, inputs), 0 where pruned.
    iterations
        Maximum number. In exact arithmetic a row needs at most as many as it keeps weights; real inputs need far fewer.
    tolerance
        A row is finished when the norm of its residual, relative to that of the mask alone, is at most this.

    Returns
    -------
    torch.Tensor
        (rows, inputs) float32, +0.0 where pruned.
    """
    norms, units = input_norms(gram)
    G = gram.float() / torch.outer(units, units).float()
    w = weight.double()
    error, masked = (w - start) * norms, w.masked_fill(mask, 0) * norms
    size = error.abs().amax(dim=1, keepdim=True)
    size = size.where(size > 0, 1)
    step = _conjugate_gradients(G, (error / size).float(), (masked / size).float(), ~mask, iterations, tolerance)
    return (start + step * (size / units)).float().masked_fill(~mask, 0)


def _conjugate_gradients(
    G: torch.Tensor,
    error: torch.Tensor,
    masked: torch.Tensor,
    pruned: torch.Tensor,
    iterations: int,
    tolerance: float,
) -> torch.Tensor:
    """Return the step d, 0 where pruned, that minimises (e - d)^T G (e - d)."""
    residual, reference = (product(each, G).masked_fill_(pruned, 0) for each in (error, masked))
    step, row = torch.zeros_like(error), torch.arange(len(error), device=error.device)
    at = _Rows(row, pruned, residual, residual, _dot(residual, residual), tolerance**2 * _dot(reference, reference))
    for _ in range(iterations):
        moving = at.energy > at.done
        if moving.sum() <= _SPARSE * len(at.row):
            at = _Rows(*(field[moving] for field in at))
        if not len(at.row):
            break
        at = _iterate(G, at, step)
    return step


def _iterate(G: torch.Tensor, at: _Rows, step: torch.Tensor) -> _Rows:
    """Run one iteration: x += a p, r -= a G p, p = r + b p; a = 0 in rows that are done.

    A row is finished when the curvature along p is within rounding error.
    """
    bend = product(at.direction, G).masked_fill_(at.pruned, 0)
    curvature = _dot(at.direction, bend)
    bends = curvature > _EPSILON * len(G) ** 0.5 * _dot(at.direction, at.direction)
    length = torch.where(bends & (at.energy > at.done), at.energy / curvature, 0).float()[:, None]
    step.index_add_(0, at.row, length * at.direction)
    residual = at.residual - length * bend
    energy = torch.where(bends, _dot(residual, residual), 0)
    turn = torch.where(at.energy > 0, energy / at.energy, 0).float()[:, None]
    direction = residual + turn * at.direction
    return at._replace(residual=residual, direction=direction, energy=energy)


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left * right).sum(dim=1, dtype=torch.float64)
