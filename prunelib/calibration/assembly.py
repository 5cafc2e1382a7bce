"""A calibration while it is made: it fills block by block in scratch/, where a run that goes on finds its blocks."""

import warnings
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from prunelib.algebra.objective import output_energy
from prunelib.calibration.artifact import tokens_seen, write_grams, write_layers, write_tokens
from prunelib.calibration.gram import CalibrationSettings, supported
from prunelib.calibration.statistics import InputStatistics
from prunelib.model.layers import LayerIndex
from prunelib.model.weights import read_weight
from prunelib.resume import FinishedValues


class Assembly:
    """The folder of a calibration (:mod:`prunelib.calibration.artifact`) that is not yet whole.

    Parameters
    ----------
    scratch
        Where the folder stands, beside notes of which blocks are in it.
    folder, index
        The model, and its layers.
    windows
        Those of the calibration and those held out, both (samples, length) int32; the second may have none.
    settings
        Whose inputs are described, and how many tokens an expert needs.
    drawn_from
        What the windows were drawn from and how, the model's identity as ``model``.
    """

    def __init__(
        self,
        scratch: Path,
        folder: Path,
        index: LayerIndex,
        windows: tuple[torch.Tensor, torch.Tensor],
        settings: CalibrationSettings,
        drawn_from: Mapping[str, Any],
    ) -> None:
        self._path, self._energies = scratch / "calibration", FinishedValues(scratch / "energies")
        self._folder, self._index, self._settings = folder, index, settings
        self._counts = {"count": windows[0].numel(), "held_out_count": windows[1].numel()}
        self._origin = {"model": drawn_from["model"], "tokens": write_tokens(self._path, *windows, drawn_from)}

    def __contains__(self, block: int) -> bool:
        return str(block) in self._energies

    def write(self, block: int, statistics: Sequence[Mapping[str, InputStatistics]]) -> None:
        """Add a block: statistics by :attr:`Layer.gram`, of the windows, and where some are held out, of these."""
        readers = {layer.name: layer for layer in self._index.readers(block)}
        inputs, held_out = (
            {name: supported(readers[name], each, self._settings.least_tokens) for name, each in part.items()}
            for part in (*statistics, {})[:2]
        )
        write_grams(self._path, block, inputs, held_out, {**self._origin, **self._counts})
        layers = self._index.of_block(block)
        grams = ((layer, inputs[layer.gram].gram) for layer in layers)
        energies = {layer.name: output_energy(read_weight(self._folder, layer), gram) for layer, gram in grams}
        self._energies.write(str(block), energies)

    def finish(self) -> Path:
        """Add what the blocks have together, and return the folder; for ``dense`` propagation all blocks are there."""
        dense = self._settings.propagation == "dense"
        energies = ChainMap(*(self._energies.read(str(block)) for block in range(self._index.blocks) if dense))
        write_layers(self._path, self._index, dict(energies), self._origin)
        if dense:
            _warn_of_few(tokens_seen(self._path, self._index), self._settings.least_tokens)
        return self._path


def _warn_of_few(seen: Mapping[str, int], least_tokens: int) -> None:
    if few := [name for name, tokens in seen.items() if tokens < least_tokens]:
        warnings.warn(
            f"{len(few)} of {len(seen)} inputs of experts saw fewer than calibration.least_tokens = {least_tokens} "
            f"tokens, first {few[0]} ({seen[few[0]]}): pruned as if they were independent",
            stacklevel=4,
        )
