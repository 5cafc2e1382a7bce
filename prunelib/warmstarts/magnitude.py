"""Magnitude: the absolute value of a weight."""

from typing import Literal

import torch

from prunelib.algebra.tensors import real_matrix
from prunelib.methods.contract import MethodSettings, WarmStart


class Settings(MethodSettings):
    """No settings besides the method's name."""

    method: Literal["magnitude"] = "magnitude"


_DEFAULT = Settings()


def saliency(weight: torch.Tensor, gram: torch.Tensor | None = None, settings: Settings = _DEFAULT) -> torch.Tensor:
    """Return |W_ij|, (rows, inputs) float32; the Gram matrix is not used."""
    return real_matrix("weight", weight).float().abs()


METHOD = WarmStart(
    settings=Settings,
    saliency=saliency,
    summary="keep the largest weights",
)
