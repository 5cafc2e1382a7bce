"""Perplexity of a causal language model on windows of held-out text."""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from prunelib.errors import NumericalError
from prunelib.results import PerplexityResult
from prunelib.resume import Once, always
from prunelib.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PerplexitySettings(Settings):
    """The text that perplexity is measured on.

    Attributes
    ----------
    length
        Tokens in a window; perplexities compare only at one length.
    tokens
        The most tokens to use of each text, in windows evenly spread over it.
    batch
        Windows a forward pass; it bounds memory and does not change the result beyond rounding.
    """

    length: int = Field(ge=2)
    tokens: int = Field(ge=2)
    batch: int = Field(ge=1)

    @model_validator(mode="after")
    def _a_window_fits(self) -> "PerplexitySettings":
        if self.tokens < self.length:
            raise ValueError(f"tokens must be at least length: {self.tokens} < {self.length}")
        return self


@torch.inference_mode()
def perplexity(
    model: "PreTrainedModel",
    windows: torch.Tensor,
    batch: int,
    on_windows: Callable[[int], None] = lambda _count: None,
    once: Once = always,
) -> PerplexityResult:
    """Measure exp(mean negative log-likelihood) of the last L - 1 tokens of each window, every window on its own.

    The protocol of GPTQ (Frantar et al., 2210.17323), which SparseGPT, Wanda and SparseSwaps report: losses in float32,
    here summed in float64. Memory: the logits of one batch, and the float32 log-probabilities of one window.

    Parameters
    ----------
    model
        Put into evaluation mode (no dropout).
    windows
        (n, L) integers, L at least 2.
    batch
        Windows a forward pass.
    on_windows
        Called after each batch with the number of its windows.
    once
        Asked for the losses of each batch, by its number.

    Raises
    ------
    NumericalError
        If the loss of a window is NaN or infinite, or the mean loss too large for its exponential.
    """
    model.eval()
    losses: list[float] = []
    for number, chunk in enumerate(windows.split(batch)):
        tokens = chunk.to(model.device, torch.long)
        losses += once(str(number), partial(_losses, model, tokens, len(losses)))
        on_windows(len(chunk))
    predictions = len(windows) * (windows.shape[1] - 1)
    value = _exp_of_mean(torch.tensor(losses, dtype=torch.float64), predictions)
    return PerplexityResult(value=value, tokens=predictions, windows=len(windows))


def _losses(model: "PreTrainedModel", windows: torch.Tensor, first: int) -> list[float]:
    """The summed negative log-likelihood, in float64, of each window (n, L) int64, of which the first has a number."""
    logits = model(input_ids=windows, use_cache=False).logits  # (n, L, vocabulary)
    losses = [_loss(*pair).item() for pair in zip(logits, windows, strict=True)]  # all at once: twice the memory
    for window, loss in enumerate(losses, first):
        if not math.isfinite(loss):
            raise NumericalError(
                f"perplexity: the loss of window {window} is {loss}, expected a number; check the weights"
            )
    return losses


def _loss(logits: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits[:-1].float(), window[1:], reduction="none").double().sum()


def _exp_of_mean(losses: torch.Tensor, predictions: int) -> float:
    mean = losses.sum() / predictions
    if mean.exp().isinf():
        raise NumericalError(f"perplexity: the mean loss is {mean:g}, too large for its exponential; check the weights")
    return mean.exp().item()
