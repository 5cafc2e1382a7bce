"""Refined decoder blocks: what is kept of each, and its folder on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from prunelib.masks.pruned import Pruned, read_pruned, write_pruned
from prunelib.records import BlockResult, LayerResult, read_layers, write_layers
from prunelib.runtime import atomic, store
from prunelib.runtime.resume import FinishedParts

_PRUNED, _RECORDS, _COST = "pruned", "layers.json", "cost.json"
_COST_KIND = "cost"
_COSTS = ("seconds", "peak_bytes", "reconstruction_seconds")


class RefinedBlock(NamedTuple):
    """One refined decoder block: its masks and updated weights, its layers' records, time and memory.

    ``seconds`` is the time of each layer in each step of a chain, ``peak_bytes`` the peak memory of the process.
    ``reconstruction`` is what the refiner of whole blocks measured, if there was one, and how long it took.
    """

    pruned: Pruned
    records: list[LayerResult]
    seconds: list[list[float]]
    peak_bytes: int
    reconstruction: BlockResult | None = None
    reconstruction_seconds: float = 0.0

    @property
    def step_seconds(self) -> list[float]:
        """The time of each step: of those over all layers, and of the reconstruction."""
        seconds = [sum(of_step) for of_step in zip(*self.seconds, strict=True)]
        return [*seconds, self.reconstruction_seconds] if self.reconstruction else seconds


class Cost(NamedTuple):
    """What refinement took: seconds of each step of a chain, and the largest peak memory of its processes in bytes."""

    step_seconds: list[float]
    peak_bytes: int


class FinishedBlocks(FinishedParts[int, RefinedBlock]):
    """Refined blocks, a folder each.

    Parameters
    ----------
    provenance
        The inputs from which all blocks are made.
    """

    def __init__(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self._provenance = provenance

    def path(self, part: int) -> Path:
        """Return the folder of a block."""
        return self.folder / f"block_{part:03d}"

    def write(self, part: int, value: RefinedBlock) -> None:
        """Write a block atomically."""
        with atomic.replacing_folder(self.path(part)) as target:
            write_pruned(target / _PRUNED, value.pruned, self._provenance)
            write_layers(target / _RECORDS, value.records, self._provenance, reconstructions([value]))
            cost = {field: getattr(value, field) for field in _COSTS}
            store.write_record(target / _COST, _COST_KIND, cost)

    def read(self, part: int) -> RefinedBlock:
        """Read a block; its masks and weights stay on disk."""
        folder = self.path(part)
        pruned = read_pruned(folder / _PRUNED, self._provenance)
        layers, blocks, _ = read_layers(folder / _RECORDS, self._provenance)
        cost = store.read_record(folder / _COST, _COST_KIND)
        return RefinedBlock(pruned, layers, **cost, reconstruction=blocks[0] if blocks else None)


class BlockStore(Protocol):
    """Refined blocks: those of an earlier run, and destination of new ones."""

    def find(self, part: int) -> RefinedBlock | None:
        """Return a block; None if it is not refined."""
        ...

    def write(self, part: int, value: RefinedBlock) -> None:
        """Write a block completely or not at all."""
        ...

    def read(self, part: int) -> RefinedBlock:
        """Return a block that has been written."""
        ...


def reconstructions(blocks: Sequence[RefinedBlock]) -> list[BlockResult]:
    """Return what the refiner of whole blocks measured; empty if there was none."""
    return [block.reconstruction for block in blocks if block.reconstruction]


def cost_of(blocks: Sequence[RefinedBlock]) -> Cost:
    """Return what the refinement of all blocks took."""
    seconds = [sum(of_step) for of_step in zip(*(block.step_seconds for block in blocks), strict=True)]
    return Cost(seconds, max(block.peak_bytes for block in blocks))
