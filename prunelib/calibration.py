"""The calibration artifact: frozen tokens, the layer index, one file of Gram matrices a block, and output energies.

tokens.safetensors      the windows that the Gram matrices were accumulated over
layers.json             the layer index
block_000.safetensors   one Gram matrix for each distinct input of block 0, and so on
energies.json           ||W X||^2 of every layer
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from prunelib import store
from prunelib.errors import ArtifactError, NumericalError
from prunelib.layers import Layer, LayerIndex, read_index, write_index

_ENERGIES = "energies.json"


@dataclass(frozen=True)
class Calibration:
    """What a calibration folder holds, read on demand; ``provenance`` has the hashes of the model and the tokens."""

    folder: Path
    index: LayerIndex
    energies: Mapping[str, float]
    provenance: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path, model_sha: str) -> "Calibration":
        """Open the calibration of the model with this identity.

        Raises
        ------
        ArtifactError
            If a file is missing or damaged, or the calibration is of another model.
        """
        tokens = store.read_provenance(folder / "tokens.safetensors", "tokens")
        store.expect_provenance(folder / "tokens.safetensors", tokens, {"model": model_sha})
        provenance = {"model": model_sha, "tokens": tokens["sha256"]}
        index = read_index(folder / "layers.json", model_sha)
        return cls(folder, index, _read_energies(folder, index, provenance), provenance)

    def gram(self, layer: Layer) -> torch.Tensor:
        """The Gram matrix of a layer's input: (inputs, inputs) float32, sum over tokens.

        Raises
        ------
        ArtifactError
            If its file is missing or damaged, or was made from another model or other tokens.
        NumericalError
            If the matrix holds NaN or infinity.
        """
        path = _block_file(self.folder, layer.block)
        store.expect_provenance(path, store.read_provenance(path, "gram"), {**self.provenance, "block": layer.block})
        with safe_open(path, framework="pt") as stream:
            if layer.gram not in stream.keys():  # noqa: SIM118 - no mapping, only keys()
                raise ArtifactError(f"{path}: no Gram matrix of {layer.gram}; rerun the calibrate stage")
            gram: torch.Tensor = stream.get_tensor(layer.gram)
        if gram.dtype != torch.float32 or gram.shape != (layer.inputs, layer.inputs):
            square = f"float32 {(layer.inputs, layer.inputs)}"
            raise ArtifactError(f"{path}: {layer.gram} is {gram.dtype} {tuple(gram.shape)}, expected {square}")
        if not gram.isfinite().all():
            raise NumericalError(f"{path}: the Gram matrix of {layer.gram} holds NaN or infinity")
        return gram


def write_tokens(folder: Path, windows: torch.Tensor, provenance: Mapping[str, Any]) -> str:
    """Write windows (samples, length) int32 with their provenance and hash; return the hash, their identity.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    identity = hashlib.sha256(windows.numpy().tobytes()).hexdigest()
    header = {**provenance, "sha256": identity}
    store.write_tensors(folder / "tokens.safetensors", {"input_ids": windows}, "tokens", header)
    return identity


def write_layers(folder: Path, index: LayerIndex, energies: Mapping[str, float], provenance: Mapping[str, str]) -> None:
    """Write the layer index, and ||W X||^2 by layer name; ``provenance`` has the identities of model and tokens.

    Raises
    ------
    ArtifactError
        If a file could not be written.
    """
    write_index(folder / "layers.json", index, provenance["model"])
    store.write_json(folder / _ENERGIES, {"kind": "energies", **provenance, "energies": energies})


def write_grams(folder: Path, block: int, grams: Mapping[str, torch.Tensor], provenance: Mapping[str, Any]) -> None:
    """Write the Gram matrices of one block.

    Parameters
    ----------
    grams
        :attr:`Layer.gram` to (inputs, inputs) float32.
    provenance
        ``model`` and ``tokens`` (identities) and ``count`` (of tokens).

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    store.write_tensors(_block_file(folder, block), grams, "gram", {**provenance, "block": block})


def _read_energies(folder: Path, index: LayerIndex, provenance: Mapping[str, str]) -> dict[str, float]:
    path = folder / _ENERGIES
    header = store.read_json(path)
    if not isinstance(header, dict) or header.get("kind") != "energies":
        raise ArtifactError(f"{path}: expected an energies artifact of prunelib, found another file")
    energies: dict[str, float] = header.pop("energies", {})
    expected = {**provenance, "layers": sorted(layer.name for layer in index.layers)}
    store.expect_provenance(path, {**header, "layers": sorted(energies)}, expected)
    return energies


def _block_file(folder: Path, block: int) -> Path:
    return folder / f"block_{block:03d}.safetensors"
