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


def has_enough_tokens(layer: Layer, tokens: int, min_tokens: int) -> bool:
    """Return whether a Gram matrix over so many tokens is used: that of an expert needs at least ``min_tokens``."""
    return layer.fused is None or tokens >= min_tokens


def or_identity(layer: Layer, parts: Sequence[InputStatistics], min_tokens: int) -> list[InputStatistics]:
    """Return the statistics over the windows, and over held-out windows if any, that a layer is pruned by.

    An expert with fewer than ``min_tokens`` has identity Gram matrices and zero means in their place; one without
    held-out tokens is judged by the others.
    """
    seen, *held_out = parts
    if has_enough_tokens(layer, seen.tokens, min_tokens):
        return [seen, *(each if each.tokens else seen for each in held_out)]
    eye, zeros = torch.eye(layer.inputs, dtype=torch.float32), torch.zeros(layer.inputs, dtype=torch.float32)
    return [part._replace(gram=eye, mean=zeros) for part in parts]


def warn_of_few(seen: Mapping[str, int], min_tokens: int) -> None:
    """Warn if some inputs of experts got too few tokens; ``seen`` maps their names to token counts."""
    if few := [name for name, tokens in seen.items() if tokens < min_tokens]:
        warnings.warn(
            f"{len(few)} of {len(seen)} inputs of experts received fewer than calibration.min_tokens = {min_tokens} "
            f"tokens, e.g. {few[0]} ({seen[few[0]]}); these experts are pruned as if their inputs were independent",
            stacklevel=4,
        )
