"""Wanda: the size of a weight times the norm of its input (Sun et al., arXiv 2306.11695, equation 1)."""

from typing import Literal

import torch

from prunelib.methods.contract import MethodSettings, WarmStart


class Settings(MethodSettings):
    """Wanda has nothing to set."""

    method: Literal["wanda"] = "wanda"


_DEFAULT = Settings()


def saliency(weight: torch.Tensor, gram: torch.Tensor, settings: Settings = _DEFAULT) -> torch.Tensor:
    """|W_ij| sqrt(G_jj) for weight (rows, inputs) and gram (inputs, inputs): (rows, inputs) float32."""
    return weight.float().abs() * gram.diagonal().float().sqrt()


METHOD = WarmStart(
    settings=Settings,
    saliency=saliency,
    summary="weight times the norm of its input",
    source="Sun et al., [2306.11695](https://arxiv.org/abs/2306.11695)",
)
