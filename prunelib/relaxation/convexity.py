"""How much of the Gram matrix's diagonal a relaxation can make linear and stay convex.

Masks satisfy m^2 = m, so that Diag(d) may move from the quadratic part of the loss to its linear part without changing
the loss of any mask (Hammer and Rubin, 1970). Between the masks the function rises with d, and the relaxation with it:
the larger d, the tighter the bound, as long as G - Diag(d) has no negative eigenvalue.
"""

import torch

from prunelib.algebra.linalg import inverse
from prunelib.errors import NumericalError

_STEPS = 10  # of bisection
_ROUNDING = 2.0**-24  # of float32


def plain_share(gram: torch.Tensor) -> torch.Tensor:
    """The paper's d = 0, as d_j / G_jj (inputs,) float64; negative if rounding left a negative eigenvalue in G."""
    unit, alive = _unit_diagonal(gram)
    share, rounding = 0.0, len(gram) * _ROUNDING
    while not _is_convex(unit, share * alive.double()):
        share, rounding = -rounding, 10 * rounding
    return share * alive.double()


def tight_share(gram: torch.Tensor) -> torch.Tensor:
    """The tightest d found, as d_j / G_jj: (inputs,) float64.

    d is a multiple of each input's own variance, that which the other inputs do not explain: 1 / (G^-1)_jj. The
    multiple is the largest, to 1 / 1024, that leaves a Cholesky factor.
    """
    unit, alive = _unit_diagonal(gram)
    share = plain_share(gram)
    try:
        own = torch.zeros_like(share)
        own[alive] = 1 / inverse(unit[alive][:, alive]).diagonal()
    except NumericalError:
        return share
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _is_convex(unit, share + middle * own) else (low, middle)
    return share + low * own


def _unit_diagonal(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The Gram matrix in float64 with ones on its diagonal, and which inputs are not dead."""
    norms = gram.diagonal().double().sqrt()
    alive = norms > 0
    norms = norms.where(alive, 1)
    return gram.double() / norms / norms[:, None], alive


def _is_convex(unit: torch.Tensor, share: torch.Tensor) -> bool:
    """Whether G - Diag(d) has a Cholesky factor over the inputs that are not dead."""
    alive = unit.diagonal() > 0
    return not torch.linalg.cholesky_ex((unit - torch.diag(share))[alive][:, alive]).info.any()
