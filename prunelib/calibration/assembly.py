"""Unfinished calibrations and their shards: written block by block, so that a resumed run skips finished blocks."""

from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prunelib.algebra.objective import output_energy
from prunelib.calibration.artifact import (
    block_file,
    read_grams,
    read_origin,
    read_windows,
    tokens_seen,
    write_grams,
    write_layers,
)
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.statistics import BlockStatistics, or_identity, warn_of_few
from prunelib.model.layers import LayerIndex
from prunelib.model.weights import read_weight
from prunelib.runtime.resume import FinishedParts, FinishedValues


class GramFiles(FinishedParts[int, BlockStatistics]):
    """The Gram matrices of blocks, a file each: of a whole calibration, or of one shard of its windows.

    Parameters
    ----------
    provenance
        As in :func:`prunelib.calibration.artifact.write_grams`; a shard's has counts alone.
    """

    def __init__(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self._provenance = provenance

    def path(self, part: int) -> Path:
        """Return the file of a block."""
        return block_file(self.folder, part)

    def write(self, part: int, value: BlockStatistics) -> None:
        """Write the statistics of a block."""
        write_grams(self.folder, part, value, self._provenance)

    def read(self, part: int) -> BlockStatistics:
        """Read the statistics of a block."""
        return read_grams(self.folder, part)


def token_counts(windows: tuple[torch.Tensor, torch.Tensor]) -> dict[str, int]:
    """Return the numbers of tokens in windows and held-out windows, as the provenance of Gram matrices has them."""
    return {"count": windows[0].numel(), "held_out_count": windows[1].numel()}


class Assembly:
    """An unfinished calibration folder (:mod:`prunelib.calibration.artifact`) whose tokens are already written.

    Parameters
    ----------
    folder
        The calibration folder; its sibling folder ``energies`` records which blocks are finished.
    model, index
        The model's folder, and its layers.
    settings
        Its ``min_tokens`` is used.
    device
        Where the energy of the layers' outputs is computed.
    """

    def __init__(
        self, folder: Path, model: Path, index: LayerIndex, settings: CalibrationSettings, device: torch.device | str
    ) -> None:
        self._folder, self._energies = folder, FinishedValues(folder.with_name("energies"))
        self._model, self._index, self._settings, self._device = model, index, settings, device
        self._origin = read_origin(folder)
        self._grams = GramFiles(folder, {**self._origin, **token_counts(read_windows(folder))})

    def __contains__(self, block: int) -> bool:
        return str(block) in self._energies and block in self._grams

    def write(self, block: int, parts: BlockStatistics) -> None:
        """Add the statistics of a block."""
        readers = {layer.name: layer for layer in self._index.readers(block)}
        measured = [part for part in parts if part] or parts[:1]  # the second is empty without held-out windows
        used = {
            name: or_identity(readers[name], [part[name] for part in measured], self._settings.min_tokens)
            for name in measured[0]
        }
        known = [{name: each[number] for name, each in used.items()} for number in range(len(measured))]
        self._grams.write(block, known)
        grams = ((layer, known[0][layer.gram].gram) for layer in self._index.of_block(block))
        energies = {
            layer.name: output_energy(read_weight(self._model, layer).to(self._device), gram) for layer, gram in grams
        }
        self._energies.write(str(block), energies)

    def finish(self) -> None:
        """Write the layer index, and the energies of all blocks that were added."""
        found = {block: self._energies.find(str(block)) for block in range(self._index.blocks)}
        known = {block: energies for block, energies in found.items() if energies is not None}
        write_layers(self._folder, self._index, dict(ChainMap(*known.values())), self._origin)
        warn_of_few(tokens_seen(self._folder, known), self._settings.min_tokens)
