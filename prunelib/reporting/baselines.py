"""Figures of a cell that need other cells of the report: the optimality gap, and the error relative to Wanda's."""

from collections.abc import Sequence
from statistics import fmean

from prunelib.records import LayerResult, optimality_gap
from prunelib.reporting.cells import CellReport

WANDA = "wanda"
"""The name in params.yaml of the warm start that serves as the baseline."""

_Place = tuple[str | int | None, ...]


class Baselines:
    """The highest bound and Wanda's error of every (model, seed, pattern, layer), over all cells.

    Parameters
    ----------
    shared
        Whether these cells have the same Gram matrices. If not, each has its own, and is compared with itself alone.
    """

    def __init__(self, cells: Sequence[CellReport], *, shared: bool = True) -> None:
        self._shared = shared
        self._bounds: dict[_Place, float] = {}
        self._wanda: dict[_Place, float] = {}
        for cell in cells:
            for layer in cell.layers:
                self._add(cell, layer)

    def _add(self, cell: CellReport, layer: LayerResult) -> None:
        place = self._place(cell, layer)
        if layer.bound is not None:
            self._bounds[place] = max(layer.bound, self._bounds.get(place, 0.0))
        if cell.cell.warmstart == WANDA:
            self._wanda[place] = layer.loss_before

    def optimality_gap(self, cell: CellReport) -> float | None:
        """Return the optimality gap, :func:`prunelib.records.optimality_gap`, from the highest bound of any cell.

        None if a layer has no bound, or if weights were updated: bounds apply to masks alone.
        """
        bounds = self._bounds_of(cell)
        return optimality_gap([layer.loss_after for layer in cell.layers], bounds) if bounds else None

    def optimality_gap_total(self, cell: CellReport) -> float | None:
        """Return the optimality gap of the sums over all layers; None as in :meth:`optimality_gap`."""
        bounds = self._bounds_of(cell)
        return optimality_gap([sum(layer.loss_after for layer in cell.layers)], [sum(bounds)]) if bounds else None

    def _bounds_of(self, cell: CellReport) -> list[float]:
        """Return the highest bound of each layer; an empty list if one is unknown or weights were updated."""
        bounds = [self._bounds.get(self._place(cell, layer)) for layer in cell.layers]
        known = [bound for bound in bounds if bound is not None]
        return [] if cell.updated or len(known) < len(bounds) else known

    def error_vs_wanda(self, cell: CellReport) -> float | None:
        """Return the mean of L / L(Wanda's mask) over layers where the latter is not 0.

        None without Wanda's mask, or if blocks were reconstructed.
        """
        if cell.reconstructed:
            return None
        starts = [(layer.loss_after, self._wanda.get(self._place(cell, layer))) for layer in cell.layers]
        ratios = [loss / start for loss, start in starts if start]
        return fmean(ratios) if ratios else None

    def _place(self, cell: CellReport, layer: LayerResult) -> _Place:
        names = cell.cell
        own = () if self._shared else (names.warmstart, names.refiner)
        return names.model, names.seed, names.pattern, layer.name, *own
