"""Masks of a model in memory, whatever made them: applied to it by name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from prunelib.errors import PatternError
from prunelib.model import weights
from prunelib.model.layers import Layer
from prunelib.model.structure import find_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply_masks(model: "PreTrainedModel", masks: Mapping[str, torch.Tensor]) -> None:
    """Set the pruned weights of a model to exactly +0.0, in place; layers without a mask are unchanged.

    Parameters
    ----------
    model
        In any dtype, on any device.
    masks
        Layer name to (rows, inputs) bool, True = kept: those of a result, or of :func:`prunelib.read_masks`.

    Raises
    ------
    PatternError
        If a mask matches no layer or has another shape; nothing is changed then.
    """
    layers = masked_layers(model, masks)
    weights.apply_masks(model, tuple(layers.values()), {layer.name: masks[name] for name, layer in layers.items()})


def masked_layers(model: "PreTrainedModel", masks: Mapping[str, torch.Tensor]) -> dict[str, Layer]:
    """Return the layer of each mask, by the mask's name.

    Layers are named as transformers saves their weights. Files that are older than that (GPT-2 on the hub), and masks
    made from these, lack the base model's prefix.

    Raises
    ------
    PatternError
        If a mask matches no layer.
    """
    layers = {layer.name: layer for layer in find_layers(model).layers}
    prefix = f"{model.base_model_prefix}."
    known = {name.removeprefix(prefix): layer for name, layer in layers.items()} | layers
    if surplus := masks.keys() - known.keys():
        raise PatternError(
            f"masks: {len(surplus)} match no layer of the {type(model).__name__}, first {min(surplus)}, "
            f"expected names like {min(layers)}"
        )
    return {name: known[name] for name in masks}
