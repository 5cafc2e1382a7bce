"""What pruning knows of a layer's input."""

from typing import NamedTuple

import torch


class InputStatistics(NamedTuple):
    """Over the ``tokens`` that a layer read: ``gram`` (inputs, inputs), their sum of x x^T, and ``mean`` (inputs,)."""

    gram: torch.Tensor
    mean: torch.Tensor
    tokens: int
