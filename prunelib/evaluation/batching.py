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
    """Return whether a model's last hidden states for ``short`` change by more than rounding beside ``long``.

    What rounding changes is measured, too: with ``short`` twice in the batch.

    Parameters
    ----------
    model
        In evaluation mode (no dropout).
    short, long
        Token ids; ``short`` is padded on the right to the length of ``long``.
    """
    alone = _states(model, [short])
    noise, change = (_distance(alone, _states(model, [short, other])) for other in (short, long))
    return change > max(_FLOOR, _ROUNDINGS * torch.finfo(alone.dtype).eps, _TIMES_NOISE * noise)


def _states(model: "PreTrainedModel", inputs: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return what the output head takes for the first input (positions, width), without its padding."""
    seen: list[torch.Tensor] = []

    def take(_module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        seen.append(given[0])
        return (given[0][:, :1], *given[1:])  # logits of all positions may not fit

    longest = max(map(len, inputs))
    padded = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in inputs], device=model.device)
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(take) if head is not None else None
    try:
        logits = model(input_ids=padded, use_cache=False).logits
    finally:
        if hook:
            hook.remove()
    states: torch.Tensor = seen[-1] if seen else logits  # a head that is used without a call
    return states[0, : len(inputs[0])]


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the distance of two sets of hidden states, relative to the norm of the first."""
    return float((first.float() - second.float()).norm() / first.float().norm().clamp(min=1e-30))
