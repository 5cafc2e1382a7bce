"""Names of a model's matrices in its files, by the conversions that transformers itself uses on loading and saving."""

from collections.abc import Container, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING

import torch
from transformers.core_model_loading import revert_weight_conversion

from prunelib.errors import ModelError
from prunelib.model.layers import Layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def stored_names(model: "PreTrainedModel", parameters: Mapping[str, torch.Tensor]) -> dict[str, str | None]:
    """Map names of matrices in a model to the names under which transformers saves them.

    Parameters
    ----------
    parameters
        The matrices (rows, inputs) of one decoder block by name. They are converted together, since a tensor of the
        files may hold several; they are not read.

    Returns
    -------
    dict
        For each matrix, the name of the tensor that holds its rows in order, and nothing else; None if there is none.
    """
    numbers, first = {}, 0
    for name, weight in parameters.items():
        numbers[name] = torch.arange(first, first + len(weight)).view(-1, 1)
        first += len(weight)
    try:
        tensors = revert_weight_conversion(model, dict(numbers))
    except Exception:  # one of them has a conversion that takes whole matrices
        tensors = dict(chain.from_iterable(_converted(model, *item).items() for item in numbers.items()))
    held = {int(rows[0, 0]): tensor for tensor, rows in tensors.items() if rows.ndim == 2 and rows.numel()}
    names: dict[str, str | None] = dict.fromkeys(numbers)
    for name, rows in numbers.items():
        tensor = held.get(int(rows[0, 0]))
        if tensor is not None and torch.equal(tensors[tensor], rows):
            names[name] = tensor
    return names


def _converted(model: "PreTrainedModel", name: str, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    try:
        converted: dict[str, torch.Tensor] = revert_weight_conversion(model, {name: rows})
    except Exception:  # this one takes whole matrices
        return {}
    return converted


def found_in_files(tensor: str, prefix: str, stored: Container[str]) -> str | None:
    """Return the name in a folder's files: as saved, or without the base model's prefix (GPT-2 on the hub).

    Parameters
    ----------
    tensor, prefix
        The name under which transformers saves it, and the base model's prefix.
    stored
        The names in the files.

    Returns
    -------
    str or None
        None if the files have neither.
    """
    return next((name for name in (tensor, tensor.removeprefix(f"{prefix}.")) if name in stored), None)


def name_in_files(tensor: str, prefix: str, stored: Container[str] | None) -> str:
    """Return :func:`found_in_files`; without files (None) the name as saved.

    Raises
    ------
    ModelError
        If the files have neither name.
    """
    if stored is None:
        return tensor
    if (found := found_in_files(tensor, prefix, stored)) is not None:
        return found
    raise ModelError(f"{tensor}: no tensor of that name in the model's safetensors files")


def renamed(layers: Iterable[Layer], tensors: Mapping[str, str]) -> list[Layer]:
    """Return layers with the names in the files, of the layer, its tensor and its Gram matrix.

    Parameters
    ----------
    layers
        Layers that are modules, as named by the model.
    tensors
        The tensor of each layer, by the layer's name in the model.
    """
    names = {name: tensor.removesuffix(".weight") for name, tensor in tensors.items()}
    return [
        layer.model_copy(
            update={
                "name": names[layer.name],
                "tensor": tensors[layer.name],
                "gram": names[layer.gram],
                "module": None if names[layer.name] == layer.name else layer.name,
            }
        )
        for layer in layers
    ]
