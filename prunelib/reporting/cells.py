"""The records of an evaluated cell, and the figures that follow from its layers."""

from collections.abc import Sequence
from dataclasses import dataclass

from prunelib.cell import Cell
from prunelib.records import CellResult, LayerResult, Timing


@dataclass(frozen=True)
class CellReport:
    """All records of one cell; ``layers`` is empty and ``timing`` None for the dense model."""

    result: CellResult
    layers: Sequence[LayerResult] = ()
    timing: Timing | None = None

    @property
    def cell(self) -> Cell:
        """The cell's names."""
        return self.result.cell

    @property
    def dense(self) -> bool:
        """Whether this is the unpruned model."""
        return self.cell.pattern is None

    @property
    def updated(self) -> bool:
        """Whether kept weights were updated: the cell is then reported apart from masks alone."""
        return any(layer.updated for layer in self.layers)

    @property
    def reconstructed(self) -> bool:
        """Whether blocks were reconstructed: the cell is then reported apart from updates of single matrices."""
        return self.result.block_error is not None

    @property
    def swaps_per_row(self) -> float | None:
        """Number of swaps divided by number of rows, over all layers."""
        return _per_row(self.layers, [layer.swaps for layer in self.layers])

    @property
    def optimal_share(self) -> float | None:
        """Share of all rows that are proven to be at a 1-swap optimum."""
        return _per_row(self.layers, [layer.optimal_rows for layer in self.layers])


def _per_row(layers: Sequence[LayerResult], counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return sum(known) / sum(layer.rows for layer in layers) if known and len(known) == len(counts) else None
