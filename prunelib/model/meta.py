"""Models on torch's meta device, which have shapes but no values, so that the largest take no memory.

Their forward pass runs too: where it asks for values, to choose experts or to compare positions, it is given zeros, and
of each selection by values one element.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

_ATEN = torch.ops.aten


def build_without_values(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the model of a configuration on the meta device, in eval mode, without gradients."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, experts_implementation="eager", trust_remote_code=False)
    return model.to("meta").eval().requires_grad_(False)  # a few parameters name their device


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Let a model on the meta device run in this context; tensors are made there unless their device is named."""
    with torch.device("meta"), _Lists(), _Values(), _without_checks_of_distributions():
        yield


@contextlib.contextmanager
def _without_checks_of_distributions() -> Iterator[None]:
    """Make distributions without checking their parameters, which have no values."""
    checked = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(checked)


class _Lists(TorchFunctionMode):
    """Give zeros where a meta tensor is asked for a list."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.tolist and args[0].is_meta:
            return torch.zeros(args[0].shape, dtype=args[0].dtype, device="cpu").tolist()
        return func(*args, **(kwargs or {}))


class _Values(TorchDispatchMode):
    """Answer operations on meta tensors whose result depends on values as if all values were zero."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if (answer := _ANSWERS.get(func)) is not None and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            return answer(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _scalar(tensor: torch.Tensor) -> bool | float | int:
    """Return zero as a number of the tensor's type."""
    return torch.zeros((), dtype=tensor.dtype, device="cpu").item()


def _positions(tensor: torch.Tensor) -> torch.Tensor:
    """Return one position (1, dimensions), for whatever number of elements is not zero."""
    return torch.empty(1, tensor.ndim, dtype=torch.long, device="meta")


def _indexed(tensor: torch.Tensor, indices: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Index a tensor; a mask selects one position."""
    found: torch.Tensor = _ATEN.index.Tensor(tensor, _without_masks(indices))
    return found


def _split(tensor: torch.Tensor, sizes: Sequence[int], dim: int = 0) -> tuple[torch.Tensor, ...]:
    """Split a tensor; what the sizes leave over is the last one's."""
    sizes = [*sizes[:-1], tensor.shape[dim] - sum(sizes[:-1])]
    parts: tuple[torch.Tensor, ...] = _ATEN.split_with_sizes.default(tensor, sizes, dim)
    return parts


def _without_masks(indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Return indices with one position for each dimension of a mask."""
    found: list[torch.Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype in {torch.bool, torch.uint8}:
            found += [torch.empty(1, dtype=torch.long, device="meta")] * index.ndim
        else:
            found.append(index)
    return found


_ANSWERS: dict[Any, Callable[..., Any]] = {
    _ATEN._local_scalar_dense.default: _scalar,
    _ATEN.is_nonzero.default: lambda _tensor: False,
    _ATEN.equal.default: lambda left, right: left.shape == right.shape,
    _ATEN.nonzero.default: _positions,
    _ATEN.masked_select.default: lambda tensor, _mask: torch.empty(1, dtype=tensor.dtype, device="meta"),
    _ATEN.index.Tensor: _indexed,
    _ATEN.split_with_sizes.default: _split,
    _ATEN.index_put_.default: lambda tensor, *_: tensor,
    _ATEN.index_put.default: lambda tensor, *_: torch.empty_like(tensor),
    _ATEN.bincount.default: lambda _tensor, _weights=None, minlength=0: torch.empty(
        max(1, minlength), dtype=torch.long, device="meta"
    ),
}
