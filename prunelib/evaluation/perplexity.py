"""Perplexity of a causal language model on windows of held-out text."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from prunelib.errors import NumericalError
from prunelib.evaluation.batching import depends_on_batch
from prunelib.records import PerplexityResult
from prunelib.settings import Count, Length, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COMPARED = 64  # tokens


class PerplexitySettings(Settings):
    """The windows that perplexity is measured on.

    Attributes
    ----------
    length
        Tokens in a window; perplexities are comparable only at equal length.
    tokens
        Maximum number of tokens of each text, in windows evenly spread over it.
    batch
        Windows per forward pass; bounds memory, and changes the result only by rounding.
    """

    length: Length
    tokens: int = Field(ge=2, le=10**12)  # of the largest corpora
    batch: Count

    @model_validator(mode="after")
    def _a_window_fits(self) -> "PerplexitySettings":
        if self.tokens < self.length:
            raise ValueError(f"tokens must be at least length: {self.tokens} < {self.length}")
        return self


def perplexity(model: "PreTrainedModel", windows: torch.Tensor, batch: int) -> PerplexityResult:
    """Measure exp(mean negative log-likelihood) of the last L - 1 tokens of each window, each window separately.

    This is the protocol of GPTQ (Frantar et al., 2210.17323), which SparseGPT, Wanda and SparseSwaps report: losses in
    float32, here summed in float64. Memory: the logits of one batch, and the float32 log-probabilities of one window.

    Parameters
    ----------
    model
        Put into evaluation mode (no dropout).
    windows
        (n, L) integers, L at least 2.
    batch
        Windows per forward pass; one, if a model's output for a window depends on the others.

    Raises
    ------
    NumericalError
        If the loss of a window is NaN or infinite, or exp(mean loss) overflows.
    """
    model.eval()
    batch = 1 if windows_run_alone(model, windows, batch) else batch
    starts = range(0, len(windows), batch)
    losses = [loss for first in starts for loss in window_losses(model, windows[first : first + batch], first)]
    return perplexity_of(losses, windows.shape[1])


def windows_run_alone(model: "PreTrainedModel", windows: torch.Tensor, batch: int) -> bool:
    """Return whether each window must be a batch of its own, since a model's output depends on what shares the batch.

    Compared are the beginnings of the first and the second window (n, L), which are all of one length.
    """
    first, second = windows[:1, :_COMPARED].flatten().tolist(), windows[1:2, :_COMPARED].flatten().tolist()
    return batch > 1 and bool(second) and depends_on_batch(model, first, second)


@torch.inference_mode()
def window_losses(model: "PreTrainedModel", windows: torch.Tensor, first: int) -> list[float]:
    """Return the summed negative log-likelihood of each window of a batch (n, L); ``first`` is the first one's number.

    Raises
    ------
    NumericalError
        If one is NaN or infinite.
    """
    model.eval()
    tokens = windows.to(model.device, torch.long)
    logits = model(input_ids=tokens, use_cache=False).logits  # (n, L, vocabulary)
    # one window at a time: a single call would double the memory
    losses = [_loss(*pair).item() for pair in zip(logits, tokens, strict=True)]
    for window, loss in enumerate(losses, first):
        if not math.isfinite(loss):
            raise NumericalError(
                f"perplexity: the loss of window {window} is {loss}, expected a number; check the weights"
            )
    return losses


def perplexity_of(losses: Sequence[float], length: int) -> PerplexityResult:
    """Return the perplexity from the summed losses of windows of ``length`` tokens.

    Raises
    ------
    NumericalError
        If exp(mean loss) overflows.
    """
    predictions = len(losses) * (length - 1)
    mean = torch.tensor(losses, dtype=torch.float64).sum() / predictions
    if mean.exp().isinf():
        raise NumericalError(f"perplexity: the mean loss is {mean:g}, too large for its exponential; check the weights")
    return PerplexityResult(value=mean.exp().item(), tokens=predictions, windows=len(losses))


def _loss(logits: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits[:-1].float(), window[1:], reduction="none").double().sum()
