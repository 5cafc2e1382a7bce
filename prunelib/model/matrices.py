"""Matrices in the decoder blocks of a model: which linear layers are prunable, and why others are not."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from prunelib.algebra.tensors import address
from prunelib.model.layers import DenseMatrix, Layer, watch_modules


class Matrix(NamedTuple):
    """The weight of a linear layer in a decoder block; ``kind`` and ``block`` as in :class:`Layer`."""

    name: str
    kind: str
    block: int
    module: nn.Linear | Conv1D

    @property
    def parameter(self) -> str:
        """Name of the weight."""
        return f"{self.name}.weight"

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.module.weight.shape[0 if isinstance(self.module, Conv1D) else 1])

    def layer(self, gram: str) -> Layer:
        """Return the layer; ``gram`` is the name of its Gram matrix."""
        transposed = isinstance(self.module, Conv1D)
        rows, inputs = reversed(self.module.weight.shape) if transposed else self.module.weight.shape
        return Layer(
            name=self.name,
            kind=self.kind,
            block=self.block,
            tensor=self.parameter,
            transposed=transposed,
            rows=rows,
            inputs=inputs,
            gram=gram,
        )


def block_matrices(block_list: str, number: int, block: nn.Module) -> list[Matrix]:
    """Return the linear layers of a decoder block."""
    found = {path: module for path, module in block.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    last = {path: path.rpartition(".")[2] for path in found}
    count = Counter(last.values())
    return [
        Matrix(f"{block_list}.{number}.{path}", last[path] if count[last[path]] == 1 else path, number, module)
        for path, module in found.items()
    ]


class Inputs:
    """The inputs that matrices read in a forward pass.

    Attributes
    ----------
    seen
        For each matrix, the identity of every input that it read.
    tokens
        For each matrix, the number of inputs (inputs,) that it read.
    """

    def __init__(self, model: nn.Module, matrices: Iterable[Matrix]) -> None:
        self._model, self._widths = model, {matrix.name: matrix.inputs for matrix in matrices}
        self.seen: dict[str, tuple[object, ...]] = dict.fromkeys(self._widths, ())
        self.tokens = dict.fromkeys(self._widths, 0)

    def watch(self, forward: Callable[[], object]) -> None:
        """Run the model's forward pass, and note the inputs."""
        alive = []  # while an input is referenced, no other can take its address

        def note(name: str, inputs: torch.Tensor) -> None:
            alive.append(inputs)
            self.seen[name] += (address(inputs), inputs.numel(), inputs._version)  # an in-place write increments it
            self.tokens[name] += inputs.numel() // self._widths[name]

        with watch_modules(self._model, self._widths, note):
            forward()

    def grams(self, matrices: Iterable[Matrix]) -> dict[str, str]:
        """Map each matrix to the first of these in its block with the same input."""
        first: dict[Any, str] = {}
        return {
            matrix.name: first.setdefault((matrix.block, *self.seen[matrix.name]), matrix.name) for matrix in matrices
        }


def unprunable(matrices: Iterable[Matrix], gates: Iterable[str], inputs: Inputs, tokens: int) -> dict[str, str]:
    """Map each gate, and the weight of each matrix that stays dense, to the reason.

    Parameters
    ----------
    matrices, gates
        The linear layers of all blocks, and the names of gates, linear layers or not.
    inputs, tokens
        What the layers read while so many tokens passed through the model.
    """
    matrices = tuple(matrices)
    uses = Counter(id(matrix.module.weight) for matrix in matrices)
    reasons: dict[str, str] = {}
    for matrix in matrices:
        if uses[id(matrix.module.weight)] > 1:
            reasons[matrix.parameter] = "shared between layers"
        elif not inputs.tokens[matrix.name]:
            reasons[matrix.parameter] = "its module is not called"
        elif inputs.tokens[matrix.name] != tokens:
            reasons[matrix.parameter] = "its module is not called once for every token"
    return reasons | dict.fromkeys(gates, DenseMatrix.GATE)


def coverage(
    parameters: Mapping[str, nn.Parameter], layers: Sequence[Layer], reasons: Mapping[str, str]
) -> dict[str, Any]:
    """Return the share of the blocks' matrix weights that is in layers, and the others, the largest first.

    A parameter like (1, n), a bias in the shape of a matrix, is none, unless it has a reason as the weight of a layer.
    """
    weights = {name: weight for name, weight in parameters.items() if weight.numel() > max(weight.shape, default=1)}
    of_layers = {*reasons, *(layer.parameter for layer in layers)} & parameters.keys()
    weights |= {name: parameters[name] for name in sorted(of_layers)}
    left = weights.keys() - {layer.parameter for layer in layers}
    share = sum(weights[name].numel() for name in left) / sum(weight.numel() for weight in weights.values())
    uncovered = [
        DenseMatrix(name=name, shape=tuple(weights[name].shape), reason=reasons.get(name, "not a linear layer"))
        for name in sorted(left, key=lambda name: (-weights[name].numel(), name))
    ]
    return {"coverage": 1 - share, "uncovered": tuple(uncovered)}
