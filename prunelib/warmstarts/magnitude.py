"""Magnitude: the size of a weight."""

from typing import Literal

import torch

from prunelib.methods.contract import MethodSettings, WarmStart


class Settings(MethodSettings):
    """Magnitude has nothing to set."""

    method: Literal["magnitude"] = "magnitude"


_DEFAULT = Settings()


def saliency(weight: torch.Tensor, gram: torch.Tensor | None = None, settings: Settings = _DEFAULT) -> torch.Tensor:
    """|W_ij|, (rows, inputs) float32; the Gram matrix is not looked at."""
    return weight.float().abs()


METHOD = WarmStart(
    settings=Settings,
    saliency=saliency,
    summary="keep the largest weights",
)
