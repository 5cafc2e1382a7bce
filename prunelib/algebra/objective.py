"""The pruning error and its yardstick, from the Gram matrix alone."""

from collections.abc import Callable

import torch

from prunelib.algebra.linalg import product
from prunelib.errors import NumericalError

_SLACK = 1e-3  # what rounding in float32, or a product without symmetry, may add
_STRIP = 1024  # rows of a weight that are looked at at once
_GRAM_STRIP = 128  # those of a Gram matrix


def row_losses(weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """p^T G p of each row with p = (1 - m) * w, in float64.

    Parameters
    ----------
    weight, mask
        (rows, inputs); True = kept.
    gram
        (inputs, inputs), sum over tokens of x x^T, on any device.

    Returns
    -------
    torch.Tensor
        (rows,) float64, not negative.
    """
    return _quadratic_forms(gram, weight, lambda rows: weight[rows].double().masked_fill(mask[rows], 0))


def pruning_error(weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor) -> float:
    """||W X - (M*W) X||_F^2 for weight (rows, inputs), gram (inputs, inputs) and mask (rows, inputs), True = kept."""
    return float(row_losses(weight, gram, mask).sum())


def refit_losses(weight: torch.Tensor, gram: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """e^T G e of each row with e = w - x, for kept weights that have moved to x: (rows,) float64.

    Parameters
    ----------
    weight, moved
        (rows, inputs); ``moved`` is 0 where pruned.
    gram
        (inputs, inputs), sum over tokens of x x^T, on any device.
    """
    return _quadratic_forms(gram, weight, lambda rows: weight[rows].double() - moved[rows].double())


def _quadratic_forms(gram: torch.Tensor, weight: torch.Tensor, error: Callable[[slice], torch.Tensor]) -> torch.Tensor:
    """e^T G e for the error e of each row of a weight, which is made for a strip of rows at a time: (rows,) float64."""
    forms = torch.empty(len(weight), dtype=torch.float64, device=weight.device)
    for start in range(0, len(weight), _STRIP):
        strip = slice(start, start + _STRIP)
        e = error(strip)
        forms[strip] = (product(e, gram) * e).sum(dim=1)
    return forms.clamp_(min=0)


def damped(gram: torch.Tensor, share: float) -> torch.Tensor:
    """G + share * mean(diag G) * I, (inputs, inputs): as if every input carried noise of its own."""
    return gram + share * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def output_energy(weight: torch.Tensor, gram: torch.Tensor) -> float:
    """||W X||_F^2, against which a pruning error is relative."""
    return pruning_error(weight, gram, torch.zeros_like(weight, dtype=torch.bool))


def check_layer(weight: torch.Tensor, gram: torch.Tensor) -> None:
    """Refuse a weight (rows, inputs) and a Gram matrix that cannot belong together.

    Raises
    ------
    NumericalError
        If a shape does not fit, a value is NaN or infinite, or the Gram matrix is no sum of x x^T: not symmetric, or an
        entry larger than its two diagonal entries allow (Cauchy-Schwarz).
    """
    if weight.ndim != 2 or gram.shape != (weight.shape[1],) * 2:
        raise NumericalError(
            f"gram: shape {tuple(gram.shape)} does not fit a weight of shape {tuple(weight.shape)} (rows, inputs)"
        )
    for name, tensor in (("weight", weight), ("gram", gram)):
        if not tensor.isfinite().all():
            raise NumericalError(f"{name}: NaN or infinity found, expected finite numbers")
    inverse = gram.diagonal().clamp(min=0).rsqrt()  # infinite where an input is dead: 0 times it is NaN, and passes
    for start in range(0, len(gram), _GRAM_STRIP):
        strip = slice(start, start + _GRAM_STRIP)
        scale = inverse[strip, None]
        shares, mirrored = gram[strip] * scale * inverse, gram[:, strip].T * scale * inverse
        if ((shares - mirrored).abs() > _SLACK).any() or (shares.abs() > 1 + _SLACK).any():
            raise NumericalError("gram: not symmetric and positive semidefinite, expected a sum of x x^T")
