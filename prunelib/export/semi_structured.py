"""2:4 weights on sparse tensor cores: which convert to torch's semi-structured form, and how a model is converted."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from prunelib.errors import ModelError, first_line
from prunelib.masks.patterns import NOfM

_TOLERANCE = 1e-2  # relative error of products in half precision
_TOKENS = 64
_DEVICE = "cuda"
_PATTERN = NOfM(keep=2, group=4)


def has_sparse_units() -> bool:
    """Return whether the GPU, if any, has sparse tensor cores: compute capability 8.0 or higher."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def unconvertible(weight: torch.Tensor) -> str | None:
    """Return why ``torch.sparse.to_sparse_semi_structured`` fails on a weight (rows, inputs), or None if it works.

    The weight must be on a GPU with sparse tensor cores, in bfloat16 or float16, with at most two non-zeros in every
    four consecutive inputs.
    """
    inputs = torch.randn(_TOKENS, weight.shape[1], generator=_generator(weight), device=weight.device).to(weight.dtype)
    dense = inputs @ weight.T
    try:
        sparse = torch.nn.functional.linear(inputs, _converted(weight))
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return first_line(error)
    off = float((sparse - dense).norm() / dense.norm().clamp(min=1e-30))
    return None if off <= _TOLERANCE else f"its products differ by {off:.1%} from the dense ones"


@dataclass(frozen=True)
class SemiStructured:
    """What :func:`to_semi_structured` did.

    Attributes
    ----------
    converted
        Names of the linear layers whose weights are semi-structured now.
    dense
        The other linear layers, by name, with the reason.
    """

    converted: tuple[str, ...]
    dense: Mapping[str, str]


@torch.no_grad()
def to_semi_structured(model: nn.Module) -> SemiStructured:
    """Replace 2:4 weights of a model's linear layers by torch's semi-structured form, in place, for inference.

    Each is converted by ``torch.sparse.to_sparse_semi_structured`` once its products have been compared with the dense
    ones. Half of the values and two bits for each are stored: 9/16 of the memory. Whether it is faster depends on the
    GPU, the shapes and the number of tokens: measure it. Converted layers are not trained, saved or pruned again.

    Parameters
    ----------
    model
        In bfloat16 or float16, on a GPU with sparse tensor cores. Only ``nn.Linear`` can be converted: matrices that
        are stored transposed (GPT-2) or in one parameter for all experts stay dense.

    Raises
    ------
    ModelError
        If there is no GPU with sparse tensor cores, or no weight of the model is on one; nothing is changed then.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    devices = sorted({module.weight.device.type for module in linear.values()})
    if not has_sparse_units() or _DEVICE not in devices:
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        raise ModelError(
            f"to_semi_structured: the model is on {', '.join(devices) or 'no device'} ({gpu}), expected it on a GPU of "
            "compute capability 8.0 or higher (NVIDIA Ampere and later), which has sparse tensor cores"
        )
    reasons = {name: _refusal(module.weight) for name, module in linear.items()}
    converted = tuple(name for name, reason in reasons.items() if reason is None)
    for name in converted:
        linear[name].weight = nn.Parameter(_converted(linear[name].weight.detach()), requires_grad=False)
    return SemiStructured(converted, {name: reason for name, reason in reasons.items() if reason is not None})


def _converted(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight in semi-structured form, without torch's warning that this is a prototype."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*prototype", category=UserWarning)
        return torch.sparse.to_sparse_semi_structured(weight)


def _refusal(weight: torch.Tensor) -> str | None:
    """Return why a weight (rows, inputs) stays dense, or None."""
    if weight.dtype not in {torch.bfloat16, torch.float16}:
        return f"{weight.dtype}, expected torch.bfloat16 or torch.float16"
    if weight.device.type != _DEVICE:
        return f"on {weight.device}, expected a GPU"
    if weight.shape[1] % _PATTERN.group or not _PATTERN.holds_in(weight):
        return "not 2:4"
    return unconvertible(weight)


def _generator(weight: torch.Tensor) -> torch.Generator:
    return torch.Generator(weight.device).manual_seed(0)
