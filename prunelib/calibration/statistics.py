"""Statistics of a layer's input."""

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from prunelib.model.layers import Layer


class InputStatistics(NamedTuple):
    """Statistics of ``tokens`` inputs x of a layer: ``gram`` (inputs, inputs), sum of x x^T; ``mean`` (inputs,)."""

    gram: torch.Tensor
    mean: torch.Tensor
    tokens: int

    def joined(self, other: "InputStatistics") -> "InputStatistics":
        """Return the statistics over the tokens of both."""
        tokens = self.tokens + other.tokens
        total = self.mean.double() * self.tokens + other.mean.double() * other.tokens
        return InputStatistics(self.gram + other.gram, (total / max(tokens, 1)).float(), tokens)


BlockStatistics = Sequence[Mapping[str, InputStatistics]]
"""The statistics of a block's inputs by :attr:`Layer.gram`: over the windows, and over held-out windows if any."""


def supported(layer: Layer, statistics: InputStatistics, min_tokens: int) -> InputStatistics:
    """Return the statistics; for an expert with fewer than ``min_tokens``, an identity Gram matrix and zero mean."""
    if layer.fused is None or statistics.tokens >= min_tokens:
        return statistics
    return statistics._replace(gram=torch.eye(layer.inputs), mean=torch.zeros(layer.inputs))


def warn_of_few(seen: Mapping[str, int], min_tokens: int) -> None:
    """Warn if some inputs of experts got too few tokens; ``seen`` maps their names to token counts."""
    if few := [name for name, tokens in seen.items() if tokens < min_tokens]:
        warnings.warn(
            f"{len(few)} of {len(seen)} inputs of experts received fewer than calibration.min_tokens = {min_tokens} "
            f"tokens, first {few[0]} ({seen[few[0]]}): pruned as if they were independent",
            stacklevel=4,
        )
