"""Masks of a model in memory, whatever made them: applied to it by name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from prunelib.errors import ModelError, PatternError
from prunelib.masks.pruned import Pruned
from prunelib.model.adapters import without_adapters
from prunelib.model.layers import Layer
from prunelib.model.modes import in_eval_mode
from prunelib.model.structure import find_layers
from prunelib.model.weights import apply_pruned, check_masks, pruned_positions

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def apply_masks(model: "PreTrainedModel | PeftModel", masks: Mapping[str, torch.Tensor]) -> None:
    """Set the pruned weights of a model to exactly +0.0, in place; layers without a mask are unchanged.

    Parameters
    ----------
    model
        In any dtype, on any device. Of a model with adapters, the weights that these were added to are set.
    masks
        Layer name to (rows, inputs) bool, True = kept: those of a result, or of :func:`prunelib.read_masks`.

    Raises
    ------
    ModelError
        If it is no model of transformers.
    PatternError
        If a mask matches no layer or has another shape; nothing is changed then.
    """
    with without_adapters(model) as base:
        layers = masked_layers(base, masks)
        of_layers = {layer.name: masks[name] for name, layer in layers.items()}
        apply_pruned(base, tuple(layers.values()), Pruned(of_layers, {}))


def masked_layers(model: "PreTrainedModel", masks: Mapping[str, torch.Tensor]) -> dict[str, Layer]:
    """Return the layer of each mask, by the mask's name.

    Layers are named as transformers saves their weights. Files that are older than that (GPT-2 on the hub), and masks
    made from these, lack the base model's prefix.

    Raises
    ------
    PatternError
        If a mask matches no layer or has another shape.
    """
    with in_eval_mode(model):
        layers = {layer.name: layer for layer in find_layers(model).layers}
    prefix = f"{model.base_model_prefix}."
    known = {name.removeprefix(prefix): layer for name, layer in layers.items()} | layers
    if surplus := masks.keys() - known.keys():
        raise PatternError(
            f"masks: {len(surplus)} match no layer of the {type(model).__name__}, first {min(surplus)}, "
            f"expected names like {min(layers)}"
        )
    found = {name: known[name] for name in masks}
    check_masks({name: (layer.rows, layer.inputs) for name, layer in found.items()}, masks)
    return found


def pruned_parameters(
    model: "PreTrainedModel | PeftModel", masks: Mapping[str, torch.Tensor]
) -> dict[nn.Parameter, torch.Tensor]:
    """Return where the trainable parameters of a model are pruned.

    Returns
    -------
    dict
        Parameter to a bool tensor of its shape, on its device, True = pruned. A fused parameter of experts is False
        outside of the masked matrices. Frozen parameters are left out.

    Raises
    ------
    ModelError
        If it is no model of transformers, or a parameter is sharded or quantised.
    PatternError
        If a mask matches no layer or has another shape.
    """
    found: dict[nn.Parameter, torch.Tensor] = {}
    with without_adapters(model) as base:
        for name, layer in masked_layers(base, masks).items():
            parameter = base.get_parameter(layer.parameter)
            if not parameter.requires_grad:
                continue
            if type(parameter.data) is not torch.Tensor:
                raise ModelError(
                    f"{layer.parameter}: a {type(parameter.data).__name__}, expected a plain tensor; sharded and "
                    "quantised parameters are not supported"
                )
            if parameter not in found:
                found[parameter] = torch.zeros(parameter.shape, dtype=torch.bool, device=parameter.device)
            positions = pruned_positions(layer, masks[name]).to(parameter.device)
            layer.within(found[parameter]).logical_or_(positions)
    return found
