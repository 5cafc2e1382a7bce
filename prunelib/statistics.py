"""What pruning knows of a layer's input."""

from typing import NamedTuple

import torch


class InputStatistics(NamedTuple):
    """Over all tokens: ``gram`` (inputs, inputs), the sum of x x^T, and ``mean`` (inputs,), both float32."""

    gram: torch.Tensor
    mean: torch.Tensor
