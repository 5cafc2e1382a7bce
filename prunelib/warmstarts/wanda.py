"""Wanda: the absolute value of a weight times the norm of its input (Sun et al., arXiv 2306.11695, equation 1)."""

from typing import Literal

import torch

from prunelib.algebra.objective import checked_shapes
from prunelib.methods.contract import MethodSettings, WarmStart


class Wanda(MethodSettings):
    """No settings besides the method's name."""

    method: Literal["wanda"] = "wanda"


_DEFAULT = Wanda()


def wanda(weight: torch.Tensor, gram: torch.Tensor, settings: Wanda = _DEFAULT) -> torch.Tensor:
    """Return |W_ij| sqrt(G_jj), (rows, inputs) float32, for weight (rows, inputs) and gram (inputs, inputs).

    Examples
    --------
    >>> prunelib.wanda(torch.tensor([[3.0, -1.0]]), torch.diag(torch.tensor([1.0, 16.0])))
    tensor([[3., 4.]])
    """
    weight, gram = checked_shapes(weight, gram)
    return weight.float().abs() * gram.diagonal().float().sqrt()


METHOD = WarmStart(
    settings=Wanda,
    saliency=wanda,
    summary="weight times the norm of its input",
    source="Sun et al., [2306.11695](https://arxiv.org/abs/2306.11695)",
)
