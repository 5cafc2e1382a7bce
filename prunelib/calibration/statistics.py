"""What pruning knows of a layer's input."""

from typing import NamedTuple

import torch


class InputStatistics(NamedTuple):
    """Over the ``tokens`` that a layer read: ``gram`` (inputs, inputs), their sum of x x^T, and ``mean`` (inputs,)."""

    gram: torch.Tensor
    mean: torch.Tensor
    tokens: int

    def joined(self, other: "InputStatistics") -> "InputStatistics":
        """Over the tokens of both."""
        tokens = self.tokens + other.tokens
        total = self.mean.double() * self.tokens + other.mean.double() * other.tokens
        return InputStatistics(self.gram + other.gram, (total / max(tokens, 1)).float(), tokens)
