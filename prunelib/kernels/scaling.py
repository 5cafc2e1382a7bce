"""Equilibration by powers of two: any magnitude of weights and inputs, the same swaps, without a rounding error.

With d_j = 2^round(log2 sqrt(G_jj)), the problem (w_j d_j, G_ij / (d_i d_j)) has the same losses as (w_j, G_ij); its
Gram matrix has a diagonal between 1/2 and 2, or 0 for dead inputs. Each row is further divided by a power of two so
that its largest weight lies between 1/2 and 1, which divides its loss by that power squared.
"""

from typing import NamedTuple

import torch


class Equilibrated(NamedTuple):
    """The scaled problem: weight (rows, inputs) and gram (inputs, inputs) float32, and loss_scale (rows,) float64."""

    weight: torch.Tensor
    gram: torch.Tensor
    loss_scale: torch.Tensor


def equilibrate(weight: torch.Tensor, gram: torch.Tensor) -> Equilibrated:
    """Scale a weight (rows, inputs) and a Gram matrix (inputs, inputs); a loss times ``loss_scale`` is the true one."""
    norms = gram.diagonal().double().sqrt()
    scale = torch.where(norms > 0, norms, 1).log2().round().exp2()
    scaled_gram = gram / scale.float() / scale.float()[:, None]
    scaled_weight = torch.where(norms > 0, weight.double() * scale, 0)
    exponent = torch.frexp(scaled_weight.abs().amax(dim=1)).exponent
    unit = torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), exponent)
    return Equilibrated((scaled_weight / unit[:, None]).float(), (scaled_gram + scaled_gram.T) / 2, unit**2)
