"""The calibration artifact: token windows, the layer index, one file of Gram matrices per block, and output energies.

tokens.safetensors      the windows that the Gram matrices were accumulated over
layers.json             the layer index
block_000.safetensors   Gram matrix and mean of each distinct input of block 0, with a second pair over the held-out
                        windows if there are any; one such file per block
energies.json           ||W X||^2 of every layer
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from prunelib.calibration.settings import ACCUMULATION, CalibrationInputs, CalibrationSettings
from prunelib.calibration.statistics import BlockStatistics, InputStatistics, has_enough_tokens
from prunelib.errors import ArtifactError, NumericalError
from prunelib.methods.contract import ExtraInputs
from prunelib.model.layers import Layer, LayerIndex, read_index, write_index
from prunelib.runtime import hashing, store
from prunelib.settings import first_fault

_TOKENS, _ENERGIES = "tokens.safetensors", "energies.json"
_MEAN, _HELD_OUT = "/mean", "/held_out"


@dataclass(frozen=True)
class Calibration:
    """The contents of a calibration folder, read on demand.

    Attributes
    ----------
    index
        The model's layers.
    energies
        ||W X||^2 by layer name; empty with sequential calibration inputs.
    provenance
        As :func:`read_origin`.
    settings
        What it was made with. There are Gram matrices only if all cells share the inputs.
    """

    folder: Path
    index: LayerIndex
    energies: Mapping[str, float]
    provenance: Mapping[str, Any]
    settings: CalibrationSettings

    @classmethod
    def open(cls, folder: Path, model_sha: str) -> "Calibration":
        """Open the calibration of the model with this identity.

        Raises
        ------
        ArtifactError
            If a file is missing or damaged, or the calibration is of another model.
        """
        tokens = store.read_provenance(folder / _TOKENS, "tokens")
        store.expect_provenance(folder / _TOKENS, tokens, {"model": model_sha})
        provenance = _origin(tokens)
        index = read_index(folder / "layers.json", model_sha)
        settings = _settings(folder / _TOKENS, tokens["settings"])
        measured = [layer.name for layer in index.layers] if settings.inputs.shared else []
        return cls(folder, index, _read_energies(folder, measured, provenance), provenance, settings)

    @property
    def inputs(self) -> CalibrationInputs:
        """The forward pass that the calibration inputs come from."""
        return self.settings.inputs

    def identity(self) -> str:
        """Return the SHA-256 over settings, tokens and Gram matrices, from the headers of their files.

        Raises
        ------
        ArtifactError
            If a file is missing or damaged.
        """
        blocks = range(self.index.blocks) if self.inputs.shared else ()
        grams = [store.tensors_identity(block_file(self.folder, block), "gram") for block in blocks]
        return hashing.sha256_json([store.tensors_identity(self.folder / _TOKENS, "tokens"), *grams])

    def windows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return windows and held-out windows, both (samples, length) int32.

        Raises
        ------
        ArtifactError
            If their file is missing or damaged.
        """
        return read_windows(self.folder)

    def gram(self, layer: Layer) -> torch.Tensor:
        """Return the Gram matrix of a layer's input: (inputs, inputs) float32, sum over tokens.

        Raises
        ------
        ArtifactError
            If its file is missing or damaged, or was made from another model or other tokens.
        NumericalError
            If the matrix contains NaN or infinity.
        """
        return self._read(layer, layer.gram, (layer.inputs, layer.inputs))

    def supports(self, layer: Layer) -> bool:
        """Return whether a layer's input had enough tokens for its Gram matrix; raise as :meth:`gram`."""
        header = store.read_provenance(block_file(self.folder, layer.block), "gram")
        return has_enough_tokens(layer, header["seen"].get(layer.gram, header["count"]), self.settings.min_tokens)

    def extra_inputs(self, layer: Layer) -> ExtraInputs:
        """Return what refiners may use besides the Gram matrix; raise as :meth:`gram`."""
        header = store.read_provenance(block_file(self.folder, layer.block), "gram")
        square = (layer.inputs, layer.inputs)
        return ExtraInputs(
            input_mean=self._read(layer, layer.gram + _MEAN, (layer.inputs,)),
            tokens=header["seen"].get(layer.gram, header["count"]),
            windows=self.settings.samples,
            name=layer.name,
            held_out_gram=self._read(layer, layer.gram + _HELD_OUT, square) if header["held_out_count"] else None,
        )

    def _read(self, layer: Layer, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        path = block_file(self.folder, layer.block)
        header = store.read_provenance(path, "gram")
        store.expect_provenance(path, header, {**self.provenance, "block": layer.block})
        tensor = store.read_tensor(path, header, name)
        if tensor.dtype != torch.float32 or tensor.shape != shape:
            raise ArtifactError(f"{path}: {name} is {tensor.dtype} {tuple(tensor.shape)}, expected float32 {shape}")
        if not tensor.isfinite().all():
            raise NumericalError(f"{path}: the Gram matrix of {name} contains NaN or infinity")
        return tensor


def write_tokens(folder: Path, windows: torch.Tensor, held_out: torch.Tensor, provenance: Mapping[str, Any]) -> str:
    """Write windows and held-out windows, both (samples, length) int32, and return their hash, which identifies them.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    identity = tokens_identity(windows, held_out)
    tensors = {"input_ids": windows, "held_out_ids": held_out}
    store.write_tensors(folder / _TOKENS, tensors, "tokens", {**provenance, "sha256": identity})
    return identity


def tokens_identity(windows: torch.Tensor, held_out: torch.Tensor) -> str:
    """Return the hash of windows and held-out windows, both (samples, length) int32."""
    hashes = [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in (windows, held_out)]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def read_windows(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Read windows and held-out windows as :func:`write_tokens` wrote them.

    Raises
    ------
    ArtifactError
        If their file is missing or damaged.
    """
    tokens = store.read_tensors(folder / _TOKENS, "tokens")
    return tokens["input_ids"], tokens["held_out_ids"]


def read_origin(folder: Path) -> dict[str, Any]:
    """Return what determines the Gram matrices of a calibration whose tokens are written.

    The identities of the ``model`` and the ``tokens``, and under ``calibration`` the settings :data:`ACCUMULATION`.

    Raises
    ------
    ArtifactError
        If their file is missing or damaged.
    """
    return _origin(store.read_provenance(folder / _TOKENS, "tokens"))


def _settings(path: Path, recorded: Mapping[str, Any]) -> CalibrationSettings:
    """Return the recorded settings, which have the seed beside them."""
    try:
        return CalibrationSettings.model_validate({key: value for key, value in recorded.items() if key != "seed"})
    except ValidationError as error:
        raise ArtifactError(f"{path}: its settings, {first_fault(error)}; rerun the stage that made it") from None


def _origin(tokens: Mapping[str, Any]) -> dict[str, Any]:
    settings = {"dense_target": 0.0, **tokens["settings"]}
    accumulation = {key: settings[key] for key in ACCUMULATION if key != "dense_target" or settings[key]}
    return {"model": tokens["model"], "tokens": tokens["sha256"], "calibration": accumulation}


def write_layers(folder: Path, index: LayerIndex, energies: Mapping[str, float], provenance: Mapping[str, Any]) -> None:
    """Write the layer index, and ||W X||^2 by layer name; ``provenance`` contains the identities of model and tokens.

    Raises
    ------
    ArtifactError
        If a file could not be written.
    """
    write_index(folder / "layers.json", index, provenance["model"])
    store.write_record(folder / _ENERGIES, "energies", {**provenance, "energies": energies})


def tokens_seen(folder: Path, blocks: Iterable[int]) -> dict[str, int]:
    """Return the token counts, by :attr:`Layer.gram`, of the inputs that did not get all tokens: those of experts.

    Raises
    ------
    ArtifactError
        If a file of Gram matrices is missing or damaged.
    """
    headers = [store.read_provenance(block_file(folder, block), "gram") for block in blocks]
    seen = {name: tokens for header in headers for name, tokens in header["seen"].items()}
    return {name: tokens for name, tokens in seen.items() if not name.endswith(_HELD_OUT)}


def write_grams(
    folder: Path,
    block: int,
    parts: BlockStatistics,
    provenance: Mapping[str, Any],
) -> None:
    """Write the Gram matrices of one block.

    Parameters
    ----------
    provenance
        ``model`` and ``tokens`` (identities), ``count`` and ``held_out_count`` (of tokens).

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    suffixed = zip(("", _HELD_OUT), parts, strict=False)
    known = {name + suffix: each for suffix, part in suffixed for name, each in part.items()}
    means = {name + _MEAN: each.mean for name, each in known.items()}
    seen = {name: each.tokens for name, each in known.items() if each.tokens != _count(name, provenance)}
    tensors = {**{name: each.gram for name, each in known.items()}, **means}
    store.write_tensors(block_file(folder, block), tensors, "gram", {**provenance, "block": block, "seen": seen})


def read_grams(folder: Path, block: int) -> BlockStatistics:
    """Read a block as :func:`write_grams` wrote it; the second mapping is empty without held-out windows.

    Raises
    ------
    ArtifactError
        If the file is missing or damaged.
    """
    path = block_file(folder, block)
    header, tensors = store.read_provenance(path, "gram"), store.read_tensors(path, "gram")
    inputs: dict[str, InputStatistics] = {}
    held_out: dict[str, InputStatistics] = {}
    for name in tensors.keys() - {name for name in tensors if name.endswith(_MEAN)}:
        tokens = header["seen"].get(name, _count(name, header))
        part = held_out if name.endswith(_HELD_OUT) else inputs
        part[name.removesuffix(_HELD_OUT)] = InputStatistics(tensors[name], tensors[name + _MEAN], tokens)
    return inputs, held_out


def _count(name: str, header: Mapping[str, Any]) -> int:
    return int(header["held_out_count" if name.endswith(_HELD_OUT) else "count"])


def _read_energies(folder: Path, layers: Sequence[str], provenance: Mapping[str, Any]) -> dict[str, float]:
    path = folder / _ENERGIES
    header = store.read_record(path, "energies")
    energies: dict[str, float] = header.pop("energies", {})
    expected = {**provenance, "layers": sorted(layers)}
    store.expect_provenance(path, {**header, "layers": sorted(energies)}, expected)
    return energies


def block_file(folder: Path, block: int) -> Path:
    """Return the file of a block's Gram matrices."""
    return folder / f"block_{block:03d}.safetensors"
