"""Unfinished calibrations and their shards: written block by block, so that a resumed run skips finished blocks."""

from collections import ChainMap
from pathlib import Path

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
from prunelib.calibration.statistics import BlockStatistics, supported, warn_of_few
from prunelib.model.layers import LayerIndex
from prunelib.model.weights import read_weight
from prunelib.runtime.resume import FinishedParts, FinishedValues


class Shard(FinishedParts[int, BlockStatistics]):
    """The Gram matrices of one part of the windows, a file per block, to be added to those of the other parts.

    Parameters
    ----------
    tokens
        Numbers of calibration and of held-out tokens in the part.
    """

    def __init__(self, folder: Path, tokens: tuple[int, int]) -> None:
        super().__init__(folder)
        self._counts = dict(zip(("count", "held_out_count"), tokens, strict=True))

    def path(self, part: int) -> Path:
        """Return the file of a block."""
        return block_file(self.folder, part)

    def write(self, part: int, value: BlockStatistics) -> None:
        """Write the statistics of a block."""
        write_grams(self.folder, part, value, self._counts)

    def read(self, part: int) -> BlockStatistics:
        """Read the statistics of a block."""
        return read_grams(self.folder, part)


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
    """

    def __init__(self, folder: Path, model: Path, index: LayerIndex, settings: CalibrationSettings) -> None:
        self._folder, self._energies = folder, FinishedValues(folder.with_name("energies"))
        self._grams = Shard(folder, (0, 0))
        self._model, self._index, self._settings = model, index, settings
        self._origin, windows = read_origin(folder), read_windows(folder)
        self._counts = {"count": windows[0].numel(), "held_out_count": windows[1].numel()}

    def __contains__(self, block: int) -> bool:
        return str(block) in self._energies and block in self._grams

    def write(self, block: int, parts: BlockStatistics) -> None:
        """Add the statistics of a block."""
        readers = {layer.name: layer for layer in self._index.readers(block)}
        known = [
            {name: supported(readers[name], each, self._settings.min_tokens) for name, each in part.items()}
            for part in parts
        ]
        write_grams(self._folder, block, known, {**self._origin, **self._counts})
        grams = ((layer, known[0][layer.gram].gram) for layer in self._index.of_block(block))
        energies = {layer.name: output_energy(read_weight(self._model, layer), gram) for layer, gram in grams}
        self._energies.write(str(block), energies)

    def finish(self) -> None:
        """Write the layer index, and the energies of all blocks that were added."""
        blocks = [block for block in range(self._index.blocks) if str(block) in self._energies]
        energies = ChainMap(*(self._energies.read(str(block)) for block in blocks))
        write_layers(self._folder, self._index, dict(energies), self._origin)
        warn_of_few(tokens_seen(self._folder, blocks), self._settings.min_tokens)
