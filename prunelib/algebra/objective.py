"""The pruning error and the output energy to which it is relative, from the Gram matrix alone."""

from collections.abc import Callable
from typing import Any

import torch

from prunelib.algebra.linalg import product
from prunelib.algebra.tensors import real, values
from prunelib.errors import NumericalError

_NOT_A_SUM = "gram: not symmetric and positive semidefinite, expected a sum of x x^T"
_SLACK = 1e-3  # allowance for float32 rounding and for products that are not exactly symmetric
_STRIP = 1024  # rows of a weight per chunk
_GRAM_STRIP = 128  # rows of a Gram matrix per chunk


def row_losses(weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return p^T G p of each row with p = (1 - m) * w, in float64.

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

    Raises
    ------
    NumericalError
        If a type or shape does not fit, or a number is NaN, infinite or too large.
    """
    weight, gram = checked_shapes(weight, gram)
    _require_finite(weight, gram)
    mask = _checked_mask(mask, weight)
    losses = _quadratic_forms(gram, weight, lambda rows: weight[rows].double().masked_fill(mask[rows], 0))
    if not losses.isfinite().all():
        raise NumericalError("weight or gram: too large, expected numbers whose products are finite in float64")
    return losses


def pruning_error(weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor) -> float:
    """Return ||W X - (M*W) X||_F^2 for weight and mask (rows, inputs), True = kept, and gram (inputs, inputs).

    Raises
    ------
    NumericalError
        As :func:`row_losses`.

    Examples
    --------
    >>> weight, mask = torch.tensor([[3.0, 1.0]]), torch.tensor([[True, False]])
    >>> prunelib.pruning_error(weight, torch.eye(2), mask)
    1.0
    """
    return float(row_losses(weight, gram, mask).sum())


def refit_losses(weight: torch.Tensor, gram: torch.Tensor, updated: torch.Tensor) -> torch.Tensor:
    """Return e^T G e of each row with e = w - x, for weights updated to x: (rows,) float64.

    Parameters
    ----------
    weight, updated
        (rows, inputs); ``updated`` is 0 where pruned.
    gram
        (inputs, inputs), sum over tokens of x x^T, on any device.
    """
    return _quadratic_forms(gram, weight, lambda rows: weight[rows].double() - updated[rows].double())


def _quadratic_forms(gram: torch.Tensor, weight: torch.Tensor, error: Callable[[slice], torch.Tensor]) -> torch.Tensor:
    """Return e^T G e for the error e of each row, computed for a strip of rows at a time: (rows,) float64."""
    forms = torch.empty(len(weight), dtype=torch.float64, device=weight.device)
    for start in range(0, len(weight), _STRIP):
        strip = slice(start, start + _STRIP)
        e = error(strip)
        forms[strip] = (product(e, gram) * e).sum(dim=1)
    return forms.clamp_(min=0)


def damped(gram: torch.Tensor, share: float) -> torch.Tensor:
    """Return G + share * mean(diag G) * I, (inputs, inputs): as if each input had independent noise; G if that is 0.

    Raises
    ------
    NumericalError
        If that is beyond the range of the Gram matrix's dtype.
    """
    if not share:
        return gram
    noisy = gram + share * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    if not noisy.diagonal().isfinite().all():
        raise NumericalError(f"damping = {share}: too large for the Gram matrix, its diagonal is no longer finite")
    return noisy


def input_norms(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the norms of the inputs, sqrt(G_jj), and these with 1 for dead inputs, to divide by: (inputs,) float64."""
    norms = gram.diagonal().double().clamp(min=0).sqrt()
    return norms, norms.where(norms > 0, 1)


def output_energy(weight: torch.Tensor, gram: torch.Tensor) -> float:
    """Return ||W X||_F^2, to which pruning errors are relative; raises as :func:`row_losses`."""
    weight, gram = checked_shapes(weight, gram)
    return pruning_error(weight, gram, torch.zeros_like(weight, dtype=torch.bool))


def checked_shapes(weight: torch.Tensor, gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values of a weight (rows, inputs), possibly a parameter, and of a Gram matrix (inputs, inputs).

    Raises
    ------
    NumericalError
        If one is not of real floating point, a shape does not fit, or the Gram matrix has a negative diagonal.
    """
    weight, gram = real("weight", weight), real("gram", gram)
    if weight.ndim != 2 or gram.shape != (weight.shape[1],) * 2:
        raise NumericalError(
            f"gram: shape {tuple(gram.shape)} does not fit a weight of shape {tuple(weight.shape)} (rows, inputs)"
        )
    if weight.shape[1] == 0:
        raise NumericalError(f"weight: shape {tuple(weight.shape)}, expected (rows, inputs) with at least one input")
    if (gram.diagonal() < 0).any():
        raise NumericalError(_NOT_A_SUM)
    return weight, gram


def _require_finite(weight: torch.Tensor, gram: torch.Tensor) -> None:
    for name, tensor in (("weight", weight), ("gram", gram)):
        if not tensor.isfinite().all():
            raise NumericalError(f"{name}: NaN or infinity found, expected finite numbers")


def _checked_mask(mask: Any, weight: torch.Tensor) -> torch.Tensor:
    found = values("mask", mask)
    if found.shape != weight.shape or found.dtype != torch.bool or found.device != weight.device:
        raise NumericalError(
            f"mask: {found.dtype} {tuple(found.shape)} on {found.device}, expected torch.bool {tuple(weight.shape)} on "
            f"{weight.device}, as the weight"
        )
    return found


def checked_layer(weight: torch.Tensor, gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values of a weight (rows, inputs), possibly a parameter, and of its Gram matrix (inputs, inputs).

    Raises
    ------
    NumericalError
        If a type or shape does not fit, a value is NaN or infinite, or the Gram matrix is not a sum of x x^T: not
        symmetric, or with an entry larger than its two diagonal entries allow (Cauchy-Schwarz).
    """
    weight, gram = checked_shapes(weight, gram)
    _require_finite(weight, gram)
    device = weight.device  # a GPU is faster than a CPU, even if the Gram matrix is on the latter
    inverse = gram.diagonal().clamp(min=0).rsqrt().to(device)  # inf for dead inputs; 0 * inf is NaN, which passes
    for start in range(0, len(gram), _GRAM_STRIP):
        strip = slice(start, start + _GRAM_STRIP)
        scale = inverse[strip, None]
        shares, mirrored = (part.to(device) * scale * inverse for part in (gram[strip], gram[:, strip].T))
        if ((shares - mirrored).abs() > _SLACK).any() or (shares.abs() > 1 + _SLACK).any():
            raise NumericalError(_NOT_A_SUM)
    return weight, gram
