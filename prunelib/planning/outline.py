"""The sizes of a model from its Hugging Face config.json.

The model itself is built on torch's meta device, where weights have shapes but no values, and its layers are found by
the code that calibration uses (:mod:`prunelib.model.structure`).
"""

import contextlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from prunelib.errors import ModelError, in_one_line
from prunelib.model.layers import Layer, LayerIndex, dense_by_reason
from prunelib.model.meta import build_without_values
from prunelib.model.probe import probe
from prunelib.model.structure import find_layers, quiet_transformers
from prunelib.planning.shapes import WEIGHT_BYTES, Block, Outline

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def outline(values: Mapping[str, Any]) -> Outline:
    """Return the matrices of every block of the model that a config.json describes.

    Raises
    ------
    ModelError
        If transformers cannot build the model, the dtype is unknown, or the model cannot be pruned.
    """
    of_text = values.get("text_config") or {}
    if not isinstance(of_text, Mapping):
        raise ModelError(f"config.json: text_config = {of_text!r}, expected an object")
    dtype = _stored_dtype(values, of_text)
    with quiet_transformers():
        config = _config(values)
        model = _built(config)
        index = find_layers(model)
        text = config.get_text_config(decoder=True)
        beside = 0 if text is config else _beside(model, index.block_list)
    blocks = _blocks(model, index)
    return Outline(
        family=text.model_type,
        blocks=blocks,
        other=model.num_parameters() - sum(block.prunable + block.dense for block in blocks),
        beside=beside,
        merged=sum(each.rows * each.inputs for each in index.layers if each.fused and each.fused.stored_expert is None),
        hidden=text.hidden_size,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        dtype=dtype,
        stays_dense=tuple(dense_by_reason(index)),
    )


def _stored_dtype(*configs: Mapping[str, Any]) -> str:
    named = [config[key] for config in configs for key in ("dtype", "torch_dtype") if config.get(key)]
    dtype = str((named or ["float32"])[0])
    if dtype not in WEIGHT_BYTES:
        raise ModelError(f"config.json: dtype = {dtype!r}, expected one of {', '.join(WEIGHT_BYTES)}")
    return dtype


def _config(values: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the configuration as transformers reads it, with the defaults of its family."""
    family = values.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        raise ModelError(f"config.json: model_type = {family!r}, expected one that transformers knows, such as 'llama'")
    try:
        plain = {key: value for key, value in values.items() if key != "quantization_config"}
        return CONFIG_MAPPING[family].from_dict(json.loads(json.dumps(plain), object_hook=_special_float))
    except Exception as error:  # whatever the family's checks raise
        raise ModelError(f"config.json: no configuration of {family} ({in_one_line(error)})") from None


def _special_float(value: dict[str, Any]) -> Any:
    """Decode an infinity or NaN as transformers writes it in JSON."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


def _built(config: PreTrainedConfig) -> "PreTrainedModel":
    try:
        return build_without_values(config)
    except Exception as error:  # whatever the model's code raises
        raise ModelError(f"config.json: no {config.model_type} that can be built ({in_one_line(error)})") from None


def _blocks(model: "PreTrainedModel", index: LayerIndex) -> tuple[Block, ...]:
    """Return the blocks; a parameter that several share is counted in the first."""
    counted: set[int] = set()
    layers: list[list[Layer]] = [[] for _ in range(index.blocks)]
    for layer in index.layers:
        layers[layer.block].append(layer)
    blocks = []
    for block, found in zip(model.get_submodule(index.block_list).children(), layers, strict=True):
        own = {id(weight): weight.numel() for weight in block.parameters() if id(weight) not in counted}
        counted |= own.keys()
        blocks.append(Block.of(found, sum(own.values())))
    return tuple(blocks)


def _beside(model: "PreTrainedModel", block_list: str) -> int:
    """Return the number of parameters outside the blocks whose modules do not run over token ids alone."""
    ran: set[nn.Module] = set()
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            handle = module.register_forward_pre_hook(lambda module, _args: ran.add(module))
            stack.callback(handle.remove)
        probe(model)
    of_text = {id(weight) for module in ran for weight in module.parameters(recurse=False)}
    of_text |= {id(weight) for weight in model.get_submodule(block_list).parameters()}
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in of_text)
