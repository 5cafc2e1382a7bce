"""The prunable matrices of a model: their names, their locations, and which of them share an input."""

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import Field, ValidationError
from torch import nn
from torch.overrides import TorchFunctionMode

from prunelib.algebra.tensors import address
from prunelib.errors import ArtifactError, ModelError
from prunelib.runtime.store import expect_provenance, read_record, write_record
from prunelib.settings import Settings, first_fault

_KIND = "layers"
_NAMED = 3  # how many uncovered matrices a refusal names
Key = TypeVar("Key", bound=Hashable)


class Fused(Settings):
    """Location of a matrix in a fused parameter of all experts, (experts, rows, inputs).

    Attributes
    ----------
    parameter
        Name of the parameter in the model.
    expert, first_row
        Index of the slice, and of the matrix's first row in it.
    stored_expert
        Index of the slice of the stored tensor; None if experts are stored as separate tensors.
    """

    parameter: str
    expert: int = Field(ge=0)
    first_row: int = Field(ge=0)
    stored_expert: int | None = None


class Layer(Settings):
    """One prunable matrix.

    Attributes
    ----------
    name
        Name of its weight in the files less ``.weight``, ``model.layers.0.self_attn.q_proj``; masks have it, too.
    kind
        Last component of the name (``q_proj``), or the path inside the block if two layers of a block share it
        (GPT-2's ``attn.c_proj`` and ``mlp.c_proj``); the same for all experts.
    block
        Number of its decoder block, from 0.
    tensor
        Name of its weight in the folder's safetensors files.
    transposed
        Whether the weight is stored as (inputs, rows), as GPT-2's Conv1D does.
    rows, inputs
        Outputs and inputs of the layer.
    gram
        Name of the first layer of the block that reads the same input: the name of its Gram matrix.
    fused
        Location in a fused parameter of all experts; None for a separate module.
    module
        Name of the module in the model; None if it is ``name``.
    """

    name: str
    kind: str
    block: int = Field(ge=0)
    tensor: str
    transposed: bool
    rows: int = Field(ge=1)
    inputs: int = Field(ge=1)
    gram: str
    fused: Fused | None = None
    module: str | None = None

    @property
    def parameter(self) -> str:
        """Name of the model parameter that is, or contains, the matrix."""
        return f"{self.module or self.name}.weight" if self.fused is None else self.fused.parameter

    def weight(self, model: nn.Module) -> torch.Tensor:
        """Return a view of its weight in a model, in the model's layout."""
        return self.within(model.get_parameter(self.parameter).data)

    def within(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return a view of its part of :attr:`parameter`, or of a tensor of that shape, in the model's layout."""
        if self.fused is None:
            return parameter
        return parameter[self.fused.expert, self.fused.first_row : self.fused.first_row + self.rows]

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Shape of the weight in the file and in the module."""
        return (self.inputs, self.rows) if self.transposed else (self.rows, self.inputs)


class DenseMatrix(Settings):
    """A matrix in the decoder blocks that stays dense.

    Attributes
    ----------
    name, shape
        Name and shape of the parameter.
    reason
        Why it is not pruned: :attr:`GATE`, or why it is no prunable layer.
    """

    GATE: ClassVar[str] = "gate"

    name: str
    shape: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


class LayerIndex(Settings):
    """All prunable matrices of a model.

    Attributes
    ----------
    layers
        In the order of the model.
    block_list
        Name of the model's list of decoder blocks: ``model.layers``.
    blocks
        Number of decoder blocks.
    coverage
        Share of the blocks' matrix weights (parameters of two or more dimensions) in ``layers``, from 0 to 1.
    uncovered
        The others, which stay dense, the largest first.
    """

    layers: tuple[Layer, ...]
    block_list: str
    blocks: int = Field(ge=1)
    coverage: float = Field(ge=0, le=1)
    uncovered: tuple[DenseMatrix, ...] = ()

    def of_block(self, block: int) -> tuple[Layer, ...]:
        """Return the layers of one decoder block."""
        return tuple(layer for layer in self.layers if layer.block == block)

    def readers(self, block: int) -> tuple[Layer, ...]:
        """Return the first layer of a decoder block to read each distinct input; the Gram matrix has its name."""
        return tuple(layer for layer in self.of_block(block) if layer.name == layer.gram)


def require_coverage(index: LayerIndex) -> None:
    """Refuse a model whose blocks contain matrices, other than gates, that are not pruned.

    Raises
    ------
    ModelError
        If there are any; the message gives the coverage, and the largest of them with the reasons.
    """
    if left := [matrix for matrix in index.uncovered if matrix.reason != DenseMatrix.GATE]:
        named = ", ".join(f"{matrix}: {matrix.reason}" for matrix in left[:_NAMED])
        raise ModelError(
            f"allow_uncovered: false, but prunable layers contain only {index.coverage:.1%} of the weights in the "
            f"model's blocks; not covered: {named}; set it to true to prune the covered part alone"
        )


def dense_by_reason(index: LayerIndex) -> list[str]:
    """Return a line for each reason why matrices stay dense: their number, their weights and the first name."""
    lines = []
    for reason in dict.fromkeys(matrix.reason for matrix in index.uncovered):
        of_reason = [matrix for matrix in index.uncovered if matrix.reason == reason]
        weights = sum(prod(matrix.shape) for matrix in of_reason)
        first = min(matrix.name for matrix in of_reason)
        lines.append(f"{len(of_reason)} matrices of {weights:,} weights stay dense, first {first}: {reason}")
    return lines


def write_index(path: Path, index: LayerIndex, model_sha: str) -> None:
    """Write the index of the model with this identity as JSON.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    write_record(path, _KIND, {"model": model_sha, **index.model_dump(mode="json")})


def read_index(path: Path, model_sha: str) -> LayerIndex:
    """Read the index of the model with this identity.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged, not an index, or of another model.
    """
    header = read_record(path, _KIND)
    expect_provenance(path, {"model": header.pop("model", None)}, {"model": model_sha})
    try:
        return LayerIndex.model_validate(header)
    except ValidationError as error:
        raise ArtifactError(f"{path}: damaged, {first_fault(error)}; rerun the stage that made it") from None


@contextlib.contextmanager
def watch_inputs(
    model: nn.Module, layers: Iterable[Layer], receive: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """Pass the inputs of layers to ``receive(name, inputs)`` whenever the model runs them in this context."""
    layers = tuple(layers)
    modules = {layer.module or layer.name: layer.name for layer in layers if layer.fused is None}
    slices = {layer.name: layer.weight(model) for layer in layers if layer.fused is not None}
    with (
        watch_modules(model, modules, lambda module, inputs: receive(modules[module], inputs)),
        watch_slices(slices, receive),
    ):
        yield


@contextlib.contextmanager
def watch_modules(
    model: nn.Module, names: Iterable[str], receive: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """Pass the input of the named modules to ``receive(name, input)`` whenever the model runs them in this context."""
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _module, args, name=name: receive(name, args[0]))
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def watch_slices(
    slices: Mapping[Key, torch.Tensor], receive: Callable[[Key, torch.Tensor], None]
) -> contextlib.AbstractContextManager[Any]:
    """Pass the inputs multiplied by slices of parameters to ``receive(key, inputs)`` in this context.

    Transformers' plain implementation of experts (``experts_implementation="eager"``) calls ``linear(inputs,
    parameter[expert])``. Slices are recognised by their address.
    """
    return _WatchLinear(slices, receive) if slices else contextlib.nullcontext()


class _WatchLinear(TorchFunctionMode):
    def __init__(self, slices: Mapping[Any, torch.Tensor], receive: Callable[[Any, torch.Tensor], None]) -> None:
        super().__init__()
        self._keys, self._receive = {address(weight): key for key, weight in slices.items()}, receive

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.linear and (key := self._keys.get(address(args[1]))) is not None:
            self._receive(key, args[0])
        return func(*args, **(kwargs or {}))
