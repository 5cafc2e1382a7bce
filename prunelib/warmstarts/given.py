"""Given: masks in a file that the user names, checked to fit the model and the pattern exactly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib.errors import ArtifactError, PatternError
from prunelib.masks.checks import check_mask
from prunelib.masks.packed import read_masks
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import MethodSettings, WarmStart
from prunelib.model.weights import check_masks, open_shard
from prunelib.runtime import hashing, store


class GivenMasks(MethodSettings):
    """Settings of given masks.

    Attributes
    ----------
    path
        A safetensors file: masks of prunelib (``artifacts/warmstarts/...``, or ``masks.safetensors`` of a refined
        cell), or one tensor (rows, inputs) of 0 and 1 for each layer, 1 = kept, named after the layer
        (``model.layers.0.mlp.up_proj``) or its weight (``....up_proj.weight``).
    sha256
        The hash of the file. Provenance contains it, not the path.
    """

    method: Literal["given"] = "given"
    path: Annotated[str, Field(min_length=1, exclude=True)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def given_masks(
    settings: GivenMasks, shapes: Mapping[str, tuple[int, int]], patterns: Mapping[str, Pattern], model: str | None
) -> Mapping[str, torch.Tensor]:
    """Read the masks (rows, inputs) bool of all layers, by layer name.

    Arguments and errors: :class:`prunelib.methods.contract.ReadMasks`.

    Raises
    ------
    ArtifactError
        Also if the file has another hash, or values other than 0 and 1.
    """
    path = Path(settings.path)
    _check_hash(path, settings.sha256)
    found = _read(path, model)
    try:
        check_masks(shapes, found)
    except PatternError as error:
        raise PatternError(f"{path}: {error}") from None
    for name in shapes:
        _check_counts(path, name, found[name], patterns[name])
    return found


METHOD = WarmStart(
    settings=GivenMasks,
    read=given_masks,
    summary="the masks in the safetensors file `path`, from another run or another tool",
)


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file, expected given masks in safetensors")
    found = hashing.sha256_file(path)
    if found != expected:
        raise ArtifactError(f"{path}: sha256 is {found}, params.yaml expects {expected}")


def _check_counts(path: Path, name: str, mask: torch.Tensor, pattern: Pattern) -> None:
    try:
        check_mask(mask, mask, pattern)
    except PatternError as error:
        raise PatternError(f"{path}: {name}: {error}") from None


def _read(path: Path, model: str | None) -> Mapping[str, torch.Tensor]:
    """Read the masks of a file of either kind, by layer name."""
    with open_shard(path) as stream:
        if "prunelib" in (stream.metadata() or {}):
            return _read_ours(path, model)
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping, only keys()
    found = {name.removesuffix(".weight"): _boolean(path, name, tensor) for name, tensor in tensors.items()}
    if len(found) < len(tensors):
        raise ArtifactError(f"{path}: contains a layer twice, under its own name and that of its weight")
    return found


def _read_ours(path: Path, model: str | None) -> Mapping[str, torch.Tensor]:
    made_from = store.read_provenance(path, "mask")
    return read_masks(path, {"model": model} if model and "model" in made_from else {})


def _boolean(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not ((tensor == 0) | (tensor == 1)).all():
        raise ArtifactError(f"{path}: {name} contains values other than 0 and 1, expected a mask (1 = kept)")
    return tensor == 1
