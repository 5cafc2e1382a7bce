"""Magnitude: the absolute value of a weight."""

from typing import Literal

import torch

from prunelib.algebra.tensors import real_matrix
from prunelib.methods.contract import MethodSettings, WarmStart


class Magnitude(MethodSettings):
    """No settings besides the method's name."""

    method: Literal["magnitude"] = "magnitude"


_DEFAULT = Magnitude()


def magnitude(weight: torch.Tensor, gram: torch.Tensor | None = None, settings: Magnitude = _DEFAULT) -> torch.Tensor:
    """Return |W_ij|, (rows, inputs) float32; the Gram matrix is not used."""
    return real_matrix("weight", weight).float().abs()


METHOD = WarmStart(
    settings=Magnitude,
    saliency=magnitude,
    summary="keep the largest weights",
)
