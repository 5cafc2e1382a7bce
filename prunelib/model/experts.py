"""Experts whose weights are fused into one parameter (experts, rows, inputs).

The tensor names of the fused matrices in a model's files come from transformers' own weight conversions.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.core_model_loading import revert_weight_conversion

from prunelib.errors import ModelError
from prunelib.model.layers import Fused, Layer, watch_slices
from prunelib.model.probe import probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def fused_parameters(model: "PreTrainedModel", block_list: str) -> dict[str, nn.Parameter]:
    """Return the parameters (experts, rows, inputs) in a model's blocks whose slices its forward multiplies by.

    The forward of two tokens uses few experts, and in some blocks perhaps none: what it multiplies by in one block is
    returned of all blocks.

    Raises
    ------
    ModelError
        As :func:`prunelib.model.probe.probe`.
    """
    held = {
        name: weight
        for name, weight in model.named_parameters()
        if name.startswith(f"{block_list}.") and weight.ndim == 3
    }
    slices = {(name, expert): weight.data[expert] for name, weight in held.items() for expert in range(len(weight))}
    used: set[str] = set()
    with watch_slices(slices, lambda key, _: used.add(place_in_blocks(key[0], block_list)[1])):
        probe(model)
    return {name: weight for name, weight in held.items() if place_in_blocks(name, block_list)[1] in used}


def expert_layers(model: "PreTrainedModel", name: str, parameter: nn.Parameter, block: int) -> list[Layer]:
    """Return the matrices of a fused parameter, as stored in the model's files, expert by expert.

    Parameters
    ----------
    name, parameter, block
        The parameter (experts, rows, inputs), and the number of its decoder block.

    Raises
    ------
    ModelError
        If a tensor in the files is not a contiguous range of rows of one expert, or has another layout.
    """
    _, rows, inputs = parameter.shape
    layers: list[Layer] = []
    for first, count, tensor, stored_expert in sorted(_slices(model, name, parameter)):
        expert, first_row = divmod(first, rows)
        stem = tensor.removesuffix(".weight")
        layer_name = stem if stored_expert is None else f"{stem}.{stored_expert}"
        shares = bool(layers) and layers[-1].fused is not None and layers[-1].fused.expert == expert
        layers.append(
            Layer(
                name=layer_name,
                kind=f"experts.{stem.rpartition('.')[2]}",
                block=block,
                tensor=tensor,
                transposed=False,
                rows=count,
                inputs=inputs,
                gram=layers[-1].gram if shares else layer_name,
                fused=Fused(parameter=name, expert=expert, first_row=first_row, stored_expert=stored_expert),
            )
        )
    return layers


def place_in_blocks(name: str, block_list: str) -> tuple[int, str]:
    """Return the number of a parameter's block, and the name that it has there."""
    block, _, within = name.removeprefix(f"{block_list}.").partition(".")
    return int(block), within


def _slices(model: "PreTrainedModel", name: str, parameter: nn.Parameter) -> Iterator[tuple[int, int, str, int | None]]:
    """Yield each stored matrix: first row (over all experts), number of rows, tensor name, expert index in the tensor.

    The expert index is None if the tensor contains one matrix.
    """
    experts, rows, _ = parameter.shape
    numbers = torch.arange(experts * rows).view(experts, rows, 1).repeat(1, 1, 2)  # some conversions squeeze
    try:
        tensors = revert_weight_conversion(model, {name: numbers})
    except Exception:  # a conversion that takes whole matrices
        raise ModelError(f"{name}: its files hold it in another layout") from None
    for tensor, found in tensors.items():
        for stored_expert, matrix in enumerate(found) if found.ndim == 3 else [(None, found)]:
            first, count = int(matrix[0, 0]), len(matrix)
            if first // rows != (first + count - 1) // rows or not torch.equal(
                matrix[:, 0], torch.arange(first, first + count)
            ):
                raise ModelError(f"{name}: the files store it as {tensor}, not as consecutive rows per expert")
            yield first, count, tensor, stored_expert
