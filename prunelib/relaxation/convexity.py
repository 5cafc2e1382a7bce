"""The part of the Gram matrix's diagonal that a convex relaxation can make linear.

Masks satisfy m^2 = m, so that Diag(d) can be moved from the quadratic part of the loss to its linear part without
changing the loss of any mask (Hammer and Rubin, 1970). Between the masks the function rises with d: the larger d, the
tighter the bound, as long as G - Diag(d) has no negative eigenvalue.
"""

import torch

from prunelib.algebra.linalg import inverse
from prunelib.errors import NumericalError

_STEPS = 10  # of bisection
_ROUNDING = 2.0**-24  # of float32


def plain_share(gram: torch.Tensor) -> torch.Tensor:
    """Return the paper's d = 0, as d_j / G_jj (inputs,) float64; negative if rounding gave G a negative eigenvalue.

    Raises
    ------
    NumericalError
        If G is not positive semidefinite up to rounding, or not finite; so does :func:`tight_share`.
    """
    return _plain_share(*_unit_diagonal(gram))


def tight_share(gram: torch.Tensor) -> torch.Tensor:
    """Return the tightest d found, as d_j / G_jj: (inputs,) float64.

    d is a multiple of 1 / (G^-1)_jj, the variance of each input that the other inputs do not explain. The multiple is,
    to within 1 / 1024, the largest for which G - Diag(d) has a Cholesky factor.
    """
    unit, alive = _unit_diagonal(gram)
    share = _plain_share(unit, alive)
    try:
        own = alive / inverse(unit).diagonal()
    except NumericalError:
        return share
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _is_convex(unit, share + middle * own) else (low, middle)
    return share + low * own


def _plain_share(unit: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    share, rounding = 0.0, len(unit) * _ROUNDING
    while not _is_convex(unit, share * alive.double()):
        if -share > 2 * len(unit):  # more than the eigenvalues of a matrix with a unit diagonal
            raise NumericalError("gram: no shift of its diagonal makes it convex, expected a sum of x x^T")
        share, rounding = -rounding, 10 * rounding
    return share * alive.double()


def _unit_diagonal(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Gram matrix scaled to a unit diagonal (dead inputs included), float64, and a mask of live inputs."""
    norms = gram.diagonal().double().sqrt()
    alive = norms > 0
    norms = norms.where(alive, 1)
    unit = gram.to(torch.float64, copy=True).div_(norms).div_(norms[:, None])
    unit = (unit + unit.T) / 2  # that is what the losses are of; a Cholesky factor reads one triangle alone
    unit.diagonal().masked_fill_(~alive, 1)
    return unit, alive


def _is_convex(unit: torch.Tensor, share: torch.Tensor) -> bool:
    """Return whether G - Diag(d) has a Cholesky factor."""
    shifted = unit.clone()
    shifted.diagonal().sub_(share)
    return not torch.linalg.cholesky_ex(shifted).info.any()
