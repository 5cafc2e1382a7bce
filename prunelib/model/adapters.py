"""Models with PEFT adapters: the layers that the adapters were added to, under their own names."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from prunelib.errors import ModelError

if TYPE_CHECKING:
    from peft import PeftModel


def adapted_modules(model: nn.Module) -> dict[str, Any]:
    """Return the modules of PEFT that wrap a layer, by name; where they are nested, the outermost alone."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_base_layer") and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def require_no_adapters(model: nn.Module) -> None:
    """Refuse a model with adapters, whose layers are not those that its masks are of."""
    if adapted := adapted_modules(model):
        raise ModelError(f"model: {len(adapted)} layers have adapters, first {min(adapted)}; merge them first")


@contextlib.contextmanager
def without_adapters(model: "PreTrainedModel | PeftModel") -> Iterator[PreTrainedModel]:
    """Yield the model that adapters were added to, with its own layers and names; afterwards the adapters are back.

    A model without adapters is yielded as it is.

    Raises
    ------
    ModelError
        If it is another module, such as a wrapper of a model.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(base, PreTrainedModel):
        raise ModelError(
            f"model: {type(base).__name__}, expected a transformers PreTrainedModel or a peft.PeftModel; of a compiled "
            "or distributed model, give the model within it"
        )
    adapted = adapted_modules(base)
    _exchange(base, {name: module.get_base_layer() for name, module in adapted.items()})
    try:
        yield base
    finally:
        _exchange(base, adapted)


def _exchange(model: nn.Module, modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        model.set_submodule(name, module)
