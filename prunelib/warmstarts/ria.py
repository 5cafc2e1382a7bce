"""RIA: relative importance and activations (Zhang et al., "Plug-and-Play", ICLR 2024, equations 2 and 4)."""

from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib.algebra.objective import checked_shapes
from prunelib.methods.contract import MethodSettings, WarmStart


class RIA(MethodSettings):
    """Settings of RIA: ``exponent`` is the power a of the input's norm, 0.5 in the paper."""

    method: Literal["ria"] = "ria"
    exponent: Annotated[float, Field(ge=0, le=4)] = 0.5  # a norm's higher powers leave float32's range


_DEFAULT = RIA()


def ria(weight: torch.Tensor, gram: torch.Tensor, settings: RIA = _DEFAULT) -> torch.Tensor:
    """Return (|W_ij| / sum_j |W_ij| + |W_ij| / sum_i |W_ij|) sqrt(G_jj)^a, (rows, inputs) float32.

    The sums run over all rows and columns, without the sampling of the authors' script. The share of a weight in a row
    or column of zeros is 0.
    """
    weight, gram = checked_shapes(weight, gram)
    size = weight.float().abs()
    relative = _share(size, dim=1) + _share(size, dim=0)
    return relative * gram.diagonal().float().sqrt() ** settings.exponent


METHOD = WarmStart(
    settings=RIA,
    saliency=ria,
    summary=(
        "the weight's share of its row's sum plus its share of its column's sum, times the norm of its input to the "
        "power `exponent`"
    ),
    source="Zhang et al., ICLR 2024",
)


def _share(size: torch.Tensor, dim: int) -> torch.Tensor:
    total = size.sum(dim=dim, keepdim=True)
    return size / total.where(total > 0, 1)
