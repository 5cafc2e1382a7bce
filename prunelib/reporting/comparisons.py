"""Figures of a cell that need other cells of the report: what the best mask could gain, and what Wanda's reaches."""

from collections.abc import Sequence
from statistics import fmean

from prunelib.reporting.records import CellReport
from prunelib.results import LayerResult, certified_room

WANDA = "wanda"
"""The name in params.yaml of the warm start that others are held against."""

_Place = tuple[str, int | None, str | None, str]


class Comparisons:
    """What is known of every (model, seed, pattern, layer) from all cells together."""

    def __init__(self, cells: Sequence[CellReport]) -> None:
        self._bounds: dict[_Place, float] = {}
        self._wanda: dict[_Place, float] = {}
        for cell in cells:
            for layer in cell.layers:
                self._learn(cell, layer)

    def _learn(self, cell: CellReport, layer: LayerResult) -> None:
        place = _place(cell, layer)
        if layer.bound is not None:
            self._bounds[place] = max(layer.bound, self._bounds.get(place, 0.0))
        if cell.cell.warmstart == WANDA:
            self._wanda[place] = layer.loss_before

    def certified_room(self, cell: CellReport) -> float | None:
        """:func:`prunelib.results.certified_room` with the highest bound of any cell.

        None where a layer has no bound, and where weights have moved: a bound is one for masks alone.
        """
        bounds = self._bounds_of(cell)
        return certified_room([layer.loss_after for layer in cell.layers], bounds) if bounds else None

    def certified_room_total(self, cell: CellReport) -> float | None:
        """The same of the sums over all layers."""
        bounds = self._bounds_of(cell)
        return certified_room([sum(layer.loss_after for layer in cell.layers)], [sum(bounds)]) if bounds else None

    def _bounds_of(self, cell: CellReport) -> list[float]:
        """The highest bound of each layer; none where one is unknown or weights have moved."""
        bounds = [self._bounds.get(_place(cell, layer)) for layer in cell.layers]
        known = [bound for bound in bounds if bound is not None]
        return [] if cell.moved or len(known) < len(bounds) else known

    def error_vs_wanda(self, cell: CellReport) -> float | None:
        """Mean of L / L(Wanda's mask) over the layers where Wanda's mask has an error; None without that warm start."""
        starts = [(layer.loss_after, self._wanda.get(_place(cell, layer))) for layer in cell.layers]
        ratios = [loss / start for loss, start in starts if start]
        return fmean(ratios) if ratios else None


def _place(cell: CellReport, layer: LayerResult) -> _Place:
    return cell.cell.model, cell.cell.seed, cell.cell.pattern, layer.name
