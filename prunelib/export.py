"""A pruned model as a normal Hugging Face folder: stock tensors with the pruned weights at exactly +0.0."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from prunelib.errors import ArtifactError
from prunelib.layers import LayerIndex
from prunelib.pruned import Pruned
from prunelib.store import replacing_folder, write_json
from prunelib.weights import check_masks, open_shard, pruned_places, tensor_files

_PROVENANCE_FILE = "provenance.json"
_COPIED_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
_KIND = "pruned model"
_COPIED_NAMES = ("LICENSE", "LICENCE", "NOTICE")


def export_model(folder: Path, target: Path, index: LayerIndex, pruned: Pruned, provenance: Mapping[str, Any]) -> None:
    """Write a pruned copy of a model folder that ``AutoModelForCausalLM.from_pretrained`` loads.

    Shard by shard: same files, names and dtypes, every other tensor byte for byte; config, tokenizer and licence are
    copied; ``provenance.json`` says what was pruned and how, in place of the stock model's. The target appears whole or
    not at all.

    Parameters
    ----------
    pruned
        Masks for every layer of the index, and the weights of those that have moved.
    provenance
        What the masks were made from and how, as JSON values.

    Raises
    ------
    ArtifactError
        If the target exists and is not an empty folder, the model's files are damaged, or writing fails.
    PatternError
        If the masks do not fit the layers.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ArtifactError(f"{target}: exists already, expected a new or empty folder to export to")
    check_masks(index.layers, pruned.masks)
    cleared = {layer.tensor: pruned_places(layer, pruned.masks[layer.name]) for layer in index.layers}
    moved = {
        layer.tensor: pruned.weights[layer.name].T if layer.transposed else pruned.weights[layer.name]
        for layer in index.layers
        if layer.name in pruned.weights
    }
    with replacing_folder(target) as scratch:
        for shard in sorted(set(tensor_files(folder).values())):
            _write_shard(shard, scratch / shard.name, cleared, moved)
        for file in sorted(filter(_travels, folder.iterdir())):
            shutil.copyfile(file, scratch / file.name)
        write_json(scratch / _PROVENANCE_FILE, {**provenance, "kind": _KIND})


def _write_shard(
    source: Path, target: Path, cleared: Mapping[str, torch.Tensor], moved: Mapping[str, torch.Tensor]
) -> None:
    """Copy one safetensors file with moved weights, clearing the pruned places; both by tensor, in its stored shape."""
    with open_shard(source) as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping, only keys()
    for name in tensors.keys() & cleared.keys():
        kept = moved[name].to(tensors[name].dtype) if name in moved else tensors[name]
        tensors[name] = kept.masked_fill(cleared[name], 0.0)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, target, metadata={"format": "pt"}
    )  # transformers asks for this entry


def _travels(file: Path) -> bool:
    return file.is_file() and (file.suffix in _COPIED_SUFFIXES or file.name.upper().startswith(_COPIED_NAMES))
