"""The state that a model is put into while its layers are looked for."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextlib.contextmanager
def in_eval_mode(model: "PreTrainedModel") -> Iterator[None]:
    """Put a model into eval mode, with experts whose inputs can be hooked; afterwards it is as it was."""
    training = {module: module.training for module in model.modules()}
    experts = model.get_experts_implementation()
    model.eval()
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(experts)
        for module, was in training.items():
            module.training = was
