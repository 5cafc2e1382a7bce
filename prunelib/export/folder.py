"""A pruned model as a standard Hugging Face folder: the original tensors, with pruned weights exactly +0.0."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from prunelib.errors import ModelError
from prunelib.export.semi_structured import has_sparse_units, unconvertible
from prunelib.masks.packed import write_masks
from prunelib.masks.patterns import Pattern
from prunelib.masks.pruned import MASKS_FILE, Pruned
from prunelib.model.layers import Layer, LayerIndex
from prunelib.model.weights import (
    check_masks,
    open_shard,
    pruned_positions,
    read_weight,
    shapes_of,
    stored_slice,
    tensor_files,
)
from prunelib.runtime.atomic import replacing_folder, require_new
from prunelib.runtime.store import write_json, write_text
from prunelib.sources.model_files import CARD, SHARD_INDEX, is_small_file

PROVENANCE_FILE = "provenance.json"
_KIND = "pruned model"


def export_model(
    folder: Path, target: Path, index: LayerIndex, pruned: Pruned, provenance: Mapping[str, Any], card: str
) -> None:
    """Write a pruned copy of a model folder that ``AutoModelForCausalLM.from_pretrained`` loads.

    Shards are copied one at a time. Files, tensor names and dtypes are kept, and all other tensors are identical byte
    for byte; of the other files, those that a model is made of are copied (:mod:`prunelib.sources.model_files`).
    ``masks.safetensors`` contains the masks, and is not in the index of the weights, which a model of one file has too:
    servers load every safetensors file of a folder without one. ``provenance.json``, which replaces the dense model's,
    records how the masks were made. The target is written completely or not at all.

    Parameters
    ----------
    pruned
        Masks for every layer of the index, and the updated weights of some layers.
    provenance
        Provenance of the masks, as JSON values.
    card
        The model card, Markdown.

    Raises
    ------
    ArtifactError
        If the target exists and is not an empty folder, the model's files are damaged, or writing fails.
    PatternError
        If the masks do not fit the layers.
    """
    target = require_new(target)
    check_masks(shapes_of(index.layers), pruned.masks)
    layers: dict[str, list[Layer]] = {}
    for layer in index.layers:
        layers.setdefault(layer.tensor, []).append(layer)
    files = tensor_files(folder)
    with replacing_folder(target) as scratch:
        for shard in sorted(set(files.values())):
            _write_shard(shard, scratch / shard.name, layers, pruned)
        for file in sorted(folder.iterdir()):
            if file.is_file() and is_small_file(file.name):
                shutil.copyfile(file, scratch / file.name)
        if len(set(files.values())) == 1:
            _write_index(scratch, files)
        write_masks(scratch / MASKS_FILE, pruned.masks, provenance)
        write_text(scratch / CARD, card)
        write_json(scratch / PROVENANCE_FILE, {**provenance, "kind": _KIND})


def check_groups(folder: Path, layers: Sequence[Layer], pattern: Pattern) -> str:
    """Check that no group of an exported folder keeps more weights than its pattern, and try sparse tensor cores.

    Returns
    -------
    str
        Report of the check. On a GPU with sparse tensor cores it adds how many matrices convert to semi-structured
        form, and a line for each that does not.

    Raises
    ------
    ModelError
        If a group keeps too many weights; the message names the layer.
    """
    refused: dict[str, str] = {}
    units = pattern.semi_structured and has_sparse_units()
    for layer in layers:
        weight = read_weight(folder, layer)
        if not pattern.holds_in(weight):
            size, keep = pattern.groups(*weight.shape)
            raise ModelError(f"{folder}: {layer.name} keeps more than {keep} of {size} weights")
        if units and (reason := _tried_on_gpu(weight)):
            refused[layer.name] = reason
    line = f"all {len(layers)} matrices satisfy {pattern.label}"
    if units:
        line += f"; torch.sparse.to_sparse_semi_structured accepts {len(layers) - len(refused)} of them"
    return line + "".join(f"\n{name}: {reason}" for name, reason in refused.items())


def _tried_on_gpu(weight: torch.Tensor) -> str | None:
    """Return why the GPU does not convert a weight (rows, inputs) to semi-structured form, or None."""
    try:
        return unconvertible(weight.to("cuda", torch.bfloat16))
    except torch.OutOfMemoryError:
        return "not tried: the GPU has no memory left"


def _write_shard(source: Path, target: Path, layers: Mapping[str, Sequence[Layer]], pruned: Pruned) -> None:
    """Copy one safetensors file with its layers pruned; ``layers`` maps tensor names to layers."""
    with open_shard(source) as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping, only keys()
    for name in tensors.keys() & layers.keys():
        tensors[name] = tensors[name].clone()
        for layer in layers[name]:
            _prune(stored_slice(tensors[name], layer), layer, pruned)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, target, metadata={"format": "pt"}
    )  # transformers requires this entry


def _prune(weight: torch.Tensor, layer: Layer, pruned: Pruned) -> None:
    """Prune a layer's weight in its stored layout, in place."""
    if layer.name in pruned.weights:
        updated = pruned.weights[layer.name]
        weight.copy_(updated.T if layer.transposed else updated)
    weight.masked_fill_(pruned_positions(layer, pruned.masks[layer.name]), 0.0)


def _write_index(folder: Path, files: Mapping[str, Path]) -> None:
    """Write the index of a model's weights: the file of each tensor by name, and the bytes of all tensors."""
    size = 0
    for shard in {file.name for file in files.values()}:
        with open_shard(folder / shard) as stream:
            size += sum(stream.get_tensor(name).nbytes for name in stream.keys())  # noqa: SIM118 - as above
    named = {name: file.name for name, file in files.items()}
    write_json(folder / SHARD_INDEX, {"metadata": {"total_size": size}, "weight_map": named})
