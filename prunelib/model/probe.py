"""A forward pass over two tokens, in which hooks see what a model does."""

import contextlib
from typing import TYPE_CHECKING

import torch

from prunelib.errors import ModelError, first_line
from prunelib.model.meta import without_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 2


@torch.no_grad()
def probe(model: "PreTrainedModel") -> None:
    """Run a model, which may be on the meta device, over the tokens 0 and 1.

    Raises
    ------
    ModelError
        If the model cannot be run over token ids alone.
    """
    try:
        with without_values() if model.device.type == "meta" else contextlib.nullcontext():
            model(input_ids=torch.arange(TOKENS, device=model.device)[None], use_cache=False)
    except Exception as error:  # whatever the model's code raises
        reason = first_line(error)
        raise ModelError(
            f"{type(model).__name__}: fails on two tokens ({type(error).__name__}: {reason}), expected a model that "
            "takes token ids alone"
        ) from None
