"""Equilibration by powers of two: float32 suffices for any magnitude of weights and inputs.

Weights of up to 24 significant bits are scaled without a rounding error; others are those of float64, and are rounded.

With d_j = 2^round(log2 sqrt(G_jj)), the problem (w_j d_j, G_ij / (d_i d_j)) has the same losses as (w_j, G_ij); its
Gram matrix has a diagonal between 1/2 and 2, or 0 for dead inputs. Each row is further divided by a power of two so
that its largest weight lies between 1/2 and 1, which divides its loss by that power squared.
"""

from typing import NamedTuple

import torch

# Rows of a weight or of a Gram matrix that are scaled at once: the float64 or device copy is that of a strip alone.
_STRIP = 128


class Equilibrated(NamedTuple):
    """The scaled problem: weight (rows, inputs) and gram (inputs, inputs) float32, and loss_scale (rows,) float64."""

    weight: torch.Tensor
    gram: torch.Tensor
    loss_scale: torch.Tensor


def equilibrate(weight: torch.Tensor, gram: torch.Tensor) -> Equilibrated:
    """Scale a weight (rows, inputs) and a Gram matrix (inputs, inputs); a loss times ``loss_scale`` is the layer's own.

    The scaled problem is on the weight's device. A Gram matrix on the CPU is copied there in strips, so that one Gram
    matrix and not two are in a GPU's memory.
    """
    norms = gram.diagonal().double().sqrt().to(weight.device)  # (inputs,)
    scale = torch.where(norms > 0, norms, 1).log2().round().exp2()
    # The weight of a dead input becomes 0, as its G_jj is: whatever the weight, it adds nothing to the loss.
    scaled_weight, unit = _scaled_weight(weight, torch.where(norms > 0, scale, 0))
    return Equilibrated(scaled_weight, _scaled_gram(gram, scale.float()), unit**2)


def _scaled_weight(weight: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute w_j d_j, float32, with each row divided by its unit; and the units (rows,) float64."""
    result = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    units = torch.empty(len(weight), dtype=torch.float64, device=weight.device)
    for start in range(0, len(weight), _STRIP):
        strip = slice(start, start + _STRIP)
        scaled = weight[strip].double() * scale  # (strip, inputs)
        exponent = torch.frexp(scaled.abs().amax(dim=1)).exponent
        units[strip] = torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), exponent)
        result[strip] = scaled.div_(units[strip, None])
    return result, units


def _scaled_gram(gram: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Compute the symmetric part of G_ij / (d_i d_j), on the device of the scale d (inputs,)."""
    result = torch.empty(gram.shape, dtype=torch.float32, device=scale.device)
    for start in range(0, len(gram), _STRIP):
        strip = slice(start, start + _STRIP)
        halves = (gram[strip], gram[:, strip].T)  # (strip, inputs) each
        # Divided one after the other, since the product d_i d_j may be out of float32's range.
        above, below = (half.to(scale.device) / scale / scale[strip, None] for half in halves)
        result[strip] = (above + below) / 2
    return result
