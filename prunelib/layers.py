"""The prunable matrices of a model: what they are called, where they stand, and which of them share an input."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from pydantic import Field, ValidationError
from torch import nn

from prunelib.errors import ArtifactError, ModelError
from prunelib.settings import Settings
from prunelib.store import expect_provenance, read_json, write_json

_KIND = "layers"


class Layer(Settings):
    """One prunable matrix.

    Attributes
    ----------
    name
        Of the module in the model: ``model.layers.0.self_attn.q_proj``.
    kind
        Last component of the name (``q_proj``), or the path inside the block where two layers of a block end alike
        (GPT-2's ``attn.c_proj`` and ``mlp.c_proj``).
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
    """

    name: str
    kind: str
    block: int = Field(ge=0)
    tensor: str
    transposed: bool
    rows: int = Field(ge=1)
    inputs: int = Field(ge=1)
    gram: str

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Shape of the weight in the file and in the module."""
        return (self.inputs, self.rows) if self.transposed else (self.rows, self.inputs)


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
        Share of the blocks' matrix weights (parameters of two or more dimensions) that ``layers`` hold, 1 for all.
    uncovered
        The largest tensors of the blocks that no layer holds, each ``name (shape)``.
    """

    layers: tuple[Layer, ...]
    block_list: str
    blocks: int = Field(ge=1)
    coverage: float = Field(ge=0, le=1)
    uncovered: tuple[str, ...] = ()

    def of_block(self, block: int) -> tuple[Layer, ...]:
        """The layers of one decoder block."""
        return tuple(layer for layer in self.layers if layer.block == block)

    def grams(self, block: int) -> dict[str, int]:
        """The Gram matrices of one decoder block, one for each distinct input: name to number of inputs."""
        return {layer.gram: layer.inputs for layer in self.of_block(block)}


def require_coverage(index: LayerIndex) -> None:
    """Refuse a model whose blocks hold matrix weights that would stay dense unnoticed.

    Raises
    ------
    ModelError
        With the share covered and the largest tensors that are not.
    """
    if index.coverage < 1:
        raise ModelError(
            f"allow_uncovered: false, but linear layers hold only {index.coverage:.1%} of the weights in the model's "
            f"blocks; not covered: {', '.join(index.uncovered)}; set it to true to prune the covered part alone"
        )


def write_index(path: Path, index: LayerIndex, model_sha: str) -> None:
    """Write the index of the model with this identity as JSON.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    write_json(path, {"kind": _KIND, "model": model_sha, **index.model_dump(mode="json")})


def read_index(path: Path, model_sha: str) -> LayerIndex:
    """Read the index of the model with this identity.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged, no index, or of another model.
    """
    header = read_json(path)
    if not isinstance(header, dict) or header.pop("kind", None) != _KIND:
        raise ArtifactError(f"{path}: expected a {_KIND} artifact of prunelib, found another file")
    expect_provenance(path, {"model": header.pop("model", None)}, {"model": model_sha})
    try:
        return LayerIndex.model_validate(header)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{path}: damaged, {key}: {first['msg']}; rerun the stage that made it") from None


@contextlib.contextmanager
def watch_inputs(
    model: nn.Module, names: Iterable[str], receive: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """While open, hand the input of the named modules to ``receive(name, input)`` whenever the model runs them."""
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _module, args, name=name: receive(name, args[0]))
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
