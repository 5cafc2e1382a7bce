"""Weights of prunable layers: read from a model folder, set to zero by masks in a model, checked against both.

Weights are read straight from safetensors, without transformers and without building the model.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from prunelib.errors import ArtifactError, ModelError, NumericalError, PatternError
from prunelib.masks.checks import bool_mask
from prunelib.masks.pruned import Pruned
from prunelib.model.layers import Layer
from prunelib.runtime.hashing import cached
from prunelib.sources.model_files import SINGLE_FILE, weight_files, weight_map

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_WHOLE = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}  # buffers, such as masks and positions


class StoredTensor(NamedTuple):
    """A tensor as the header of its file describes it; ``dtype`` is safetensors' name, such as ``BF16``."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_floating_point(self) -> bool:
        """Whether it is of a floating type in which weights are stored."""
        return self.dtype in _FLOATS

    @property
    def torch_dtype(self) -> torch.dtype:
        """Its type in torch, if it is floating."""
        return _FLOATS[self.dtype]


def tensor_files(folder: Path) -> dict[str, Path]:
    """Map each tensor of a model folder to its safetensors file, for single-file and sharded models.

    Raises
    ------
    ArtifactError
        If the folder has no safetensors weights, or they cannot be read.
    """
    return {name: folder / file for name, file in _file_names(folder).items()}


def _file_names(folder: Path) -> Mapping[str, str]:
    """Map each tensor to the name of its file; not read again while the folder is unchanged: models have thousands."""
    if weight_files(folder) == [SINGLE_FILE]:
        return dict.fromkeys(cached(_names_in, folder / SINGLE_FILE), SINGLE_FILE)
    return weight_map(folder)


def _names_in(file: Path) -> tuple[str, ...]:
    with open_shard(file) as stream:
        return tuple(stream.keys())


@contextlib.contextmanager
def open_shard(path: Path) -> Iterator[Any]:
    """Open one safetensors file of a model for reading, as ``safetensors.safe_open`` does.

    Raises
    ------
    ArtifactError
        If it is missing, truncated or damaged.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            yield stream
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file, though the model's index names it") from None
    except SafetensorError as error:
        raise ArtifactError(f"{path}: truncated, damaged or not a safetensors file ({error})") from None


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return all tensors of a model folder by name, from the headers of its files; raise as :func:`tensor_files`."""
    tensors = {}
    for file in sorted(set(tensor_files(folder).values())):
        with open_shard(file) as stream:
            for name in stream.keys():  # noqa: SIM118 - no mapping
                header = stream.get_slice(name)
                tensors[name] = StoredTensor(file, tuple(header.get_shape()), str(header.get_dtype()))
    return tensors


def check_stored_types(stored: Mapping[str, StoredTensor]) -> None:
    """Refuse a model with tensors of a type that no operation here takes.

    Parameters
    ----------
    stored
        Its tensors by name (:func:`stored_tensors`).

    Raises
    ------
    ModelError
        If a tensor is stored as anything but float64, float32, bfloat16, float16 or an integer; the message names the
        first.
    """
    known = _FLOATS.keys() | _WHOLE
    if other := {name: tensor for name, tensor in stored.items() if tensor.dtype not in known}:
        name = min(other)
        raise ModelError(
            f"{other[name].file}: {len(other)} tensors are of a type that cannot be pruned, first {name} "
            f"({other[name].dtype}), expected {', '.join(_FLOATS)}; dequantise the model first"
        )


def weight_count(folder: Path) -> int:
    """Return the number of weights in the safetensors files of a model folder; raise as :func:`tensor_files`."""
    return sum(prod(tensor.shape) for tensor in stored_tensors(folder).values())


def read_weight(folder: Path, layer: Layer) -> torch.Tensor:
    """Read one weight from a model folder, without building the model.

    Returns
    -------
    torch.Tensor
        (rows, inputs), in its stored dtype.

    Raises
    ------
    ArtifactError
        If the folder has no such tensor in the layer's shape.
    ModelError
        If it is not stored as float64, float32, bfloat16 or float16.
    NumericalError
        If it contains NaN or infinity.
    """
    name = _file_names(folder).get(layer.tensor)
    if name is None:
        raise ArtifactError(
            f"{folder}: no tensor {layer.tensor} in its safetensors files; is this the model of the index?"
        )
    file = folder / name
    with open_shard(file) as stream:
        stored: torch.Tensor = stored_slice(stream.get_slice(layer.tensor), layer)
    if tuple(stored.shape) != layer.stored_shape:
        raise ArtifactError(f"{file}: {layer.tensor} has shape {tuple(stored.shape)}, expected {layer.stored_shape}")
    if stored.dtype not in _FLOATS.values():
        raise ModelError(
            f"{file}: {layer.tensor} is stored as {stored.dtype}, expected {', '.join(_FLOATS)}; dequantise the model"
        )
    if not stored.isfinite().all():
        raise NumericalError(f"{file}: {layer.tensor} contains NaN or infinity, expected finite weights")
    return stored.T.contiguous() if layer.transposed else stored


def weight_in(model: nn.Module, layer: Layer) -> torch.Tensor:
    """Return the weight (rows, inputs) of a layer in a model, in the model's dtype; it may share the model's memory.

    Raises
    ------
    ModelError
        If it is not float64, float32, bfloat16 or float16.
    NumericalError
        If it contains NaN or infinity.
    """
    weight = layer.weight(model)
    if weight.dtype not in _FLOATS.values():
        raise ModelError(f"{layer.name}: its weight is {weight.dtype}, expected a float type; dequantise the model")
    if not weight.isfinite().all():
        raise NumericalError(f"{layer.name}: its weight contains NaN or infinity, expected finite weights")
    return weight.T.contiguous() if layer.transposed else weight


@torch.no_grad()
def apply_pruned(model: nn.Module, layers: tuple[Layer, ...], pruned: Pruned) -> None:
    """Copy updated weights into a model, and set its pruned weights to exactly +0.0, in place; all else is unchanged.

    Parameters
    ----------
    pruned
        Masks (rows, inputs) for exactly these layers, and the updated weights of some.

    Raises
    ------
    PatternError
        As :func:`check_masks`, before any weight is changed.
    """
    check_masks(shapes_of(layers), pruned.masks)
    for layer in layers:
        weight = layer.weight(model)
        if layer.name in pruned.weights:
            updated = pruned.weights[layer.name]
            weight.copy_(updated.T if layer.transposed else updated)
        weight.masked_fill_(pruned_positions(layer, pruned.masks[layer.name]).to(weight.device), 0.0)


def achieved_sparsity(model: nn.Module, layers: tuple[Layer, ...]) -> float:
    """Return the share of exact zeros among the weights of the layers, including zeros of the dense model."""
    weights = [layer.weight(model) for layer in layers]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def check_pruned(
    model: nn.Module,
    layers: tuple[Layer, ...],
    masks: Mapping[str, torch.Tensor],
    folder: Path,
    updated: Mapping[str, torch.Tensor],
) -> None:
    """Check that a model contains exactly these weights under these masks.

    Comparing with the folder also finds kept weights that an earlier mask set to zero; counting zeros would not, since
    a kept weight may be 0 in the dense model.

    Parameters
    ----------
    folder
        The dense model.
    updated
        Updated weights (rows, inputs) by layer name, of layers whose kept weights differ from the folder's.

    Raises
    ------
    ModelError
        If a pruned weight is not exactly +0.0 or a kept weight differs; the message names the first such layer.
    """
    check_masks(shapes_of(layers), masks)
    for layer in layers:
        weight = layer.weight(model).T if layer.transposed else layer.weight(model)
        mask = masks[layer.name].to(weight.device)
        pruned, kept = weight[~mask], weight[mask]
        if left := int(((pruned != 0) | pruned.signbit()).sum()):
            raise ModelError(f"{layer.name}: {left} of {pruned.numel()} pruned weights are not exactly +0.0")
        expected = updated[layer.name] if layer.name in updated else read_weight(folder, layer)
        origin = "the refiner" if layer.name in updated else folder
        if changed := int((kept != expected.to(weight)[mask]).sum()):
            raise ModelError(f"{layer.name}: {changed} of {kept.numel()} kept weights differ from those of {origin}")


def shapes_of(layers: Iterable[Layer]) -> dict[str, tuple[int, int]]:
    """Return rows and inputs of layers by name."""
    return {layer.name: (layer.rows, layer.inputs) for layer in layers}


def check_masks(expected: Mapping[str, tuple[int, int]], masks: Mapping[str, torch.Tensor]) -> None:
    """Refuse masks unless there is one boolean mask (rows, inputs) for each layer.

    Parameters
    ----------
    expected
        Rows and inputs of every layer by name.

    Raises
    ------
    PatternError
        If a layer is missing, unknown, or has a mask of another shape or dtype; the message names the first.
    """
    if missing := expected.keys() - masks.keys():
        raise PatternError(f"masks: {len(missing)} of {len(expected)} layers are missing, first {min(missing)}")
    if surplus := masks.keys() - expected.keys():
        raise PatternError(f"masks: {len(surplus)} match no layer of the model, first {min(surplus)}")
    for name, shape in expected.items():
        found = tuple(bool_mask(name, masks[name]).shape)
        if found != shape:
            raise PatternError(f"mask of {name}: shape {found}, expected {shape}")


def pruned_positions(layer: Layer, mask: torch.Tensor) -> torch.Tensor:
    """Return the positions that become +0.0 in the weight's stored layout.

    Parameters
    ----------
    mask
        (rows, inputs) bool, True = kept.

    Returns
    -------
    torch.Tensor
        ``layer.stored_shape`` bool, True = pruned.
    """
    return ~(mask.T if layer.transposed else mask)


def stored_slice(tensor: Any, layer: Layer) -> Any:
    """Return a view of the layer's part of its stored tensor: all of it, or the slice of its expert."""
    if layer.fused is None or layer.fused.stored_expert is None:
        return tensor[:]
    return tensor[layer.fused.stored_expert]
