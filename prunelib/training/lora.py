"""Adapters merged into a pruned model, which stays pruned."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from prunelib.errors import ModelError, NumericalError
from prunelib.model.adapters import without_adapters
from prunelib.model.masked import apply_masks, masked_layers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def merge(model: "PeftModel", masks: Mapping[str, torch.Tensor]) -> "PreTrainedModel":
    """Merge PEFT adapters into a pruned model; its pruned weights are exactly +0.0.

    An adapter's update (LoRA: B A) is dense. What it adds to pruned weights is dropped here, though the adapter was
    trained with it: measure the merged model, not the adapted one.

    Parameters
    ----------
    model
        A pruned model with adapters that PEFT can merge; it is used up, as by ``merge_and_unload``.
    masks
        Layer name to (rows, inputs) bool, True = kept: those that the model was pruned with.

    Returns
    -------
    PreTrainedModel
        The model without adapters.

    Raises
    ------
    ModelError
        If the model has no adapters that can be merged.
    PatternError
        If a mask matches no layer or has another shape; nothing is merged then.
    NumericalError
        If a merged weight would be NaN or infinite.
    """
    if not hasattr(model, "merge_and_unload"):
        raise ModelError(
            f"model: {type(model).__name__}, expected a peft.PeftModel with adapters that can be merged, such as LoRA"
        )
    with without_adapters(model) as base:
        masked_layers(base, masks)  # refuses masks that do not fit, while nothing is merged yet
    try:
        merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise NumericalError(f"model: its adapters cannot be merged ({error})") from None
    apply_masks(merged, masks)
    return merged
