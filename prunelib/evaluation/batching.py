"""Whether inputs may share a batch: a model's output for one must not depend on the others.

Phi-3's long rope takes other factors for all inputs of a batch as soon as one of them is long.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FLOOR, _ROUNDINGS, _TIMES_NOISE = 1e-4, 5, 3  # rounding alone: 9e-7 in float32, 2 eps in bfloat16 over 30 blocks


@torch.inference_mode()
def depends_on_batch(model: "PreTrainedModel", short: Sequence[int], long: Sequence[int]) -> bool:
    """Return whether a model's last hidden states for ``short`` change beyond rounding when batched with ``long``.

    What rounding changes is measured, too: with ``short`` twice in the batch.

    Parameters
    ----------
    model
        In evaluation mode (no dropout).
    short, long
        Token ids; ``short`` is padded on the right to the length of ``long``.
    """

    def of_first(*inputs: Sequence[int]) -> torch.Tensor:
        return last_states(model, input_ids=padded(inputs, model.device))[0, : len(short)]

    alone = of_first(short)
    return not equal_but_for_rounding(alone, of_first(short, long), again=of_first(short, short))


def padded(rows: Sequence[Sequence[int]], device: torch.device, value: int = 0) -> torch.Tensor:
    """Return integers (rows, the longest), padded on the right with ``value``."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], device=device)


def last_states(model: "PreTrainedModel", **inputs: torch.Tensor) -> torch.Tensor:
    """Return what the output head takes (rows, positions, width) when the model runs on ``inputs``."""
    seen: list[torch.Tensor] = []

    def take(_module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        seen.append(given[0])
        return (given[0][:, :1], *given[1:])  # logits of all positions may not fit

    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(take) if head is not None else None
    try:
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
    finally:
        if hook:
            hook.remove()
    return seen[-1] if seen else logits  # a head that is used without a call


def equal_but_for_rounding(alone: torch.Tensor, other: torch.Tensor, again: torch.Tensor | None = None) -> bool:
    """Return whether hidden states differ from those of an input alone by no more than rounding explains.

    Parameters
    ----------
    alone, other
        Of the same shape and dtype.
    again
        Those of ``alone`` with other rounding, if known: some models round more.
    """
    noise = 0.0 if again is None else _distance(alone, again)
    return _distance(alone, other) <= max(_FLOOR, _ROUNDINGS * torch.finfo(alone.dtype).eps, _TIMES_NOISE * noise)


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the distance of two sets of hidden states, relative to the norm of the first."""
    return float((first.float() - second.float()).norm() / first.float().norm().clamp(min=1e-30))
