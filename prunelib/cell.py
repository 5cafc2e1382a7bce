"""One combination of the grid, identified by its names in params.yaml."""

from prunelib.settings import Settings


class Cell(Settings):
    """One combination of the grid, by its names in params.yaml; the cell of a dense model sets only ``model``.

    ``seed`` is that of the calibration draw.
    """

    model: str
    seed: int | None = None
    pattern: str | None = None
    warmstart: str | None = None
    refiner: str | None = None

    @property
    def name(self) -> str:
        """``row60-wanda-swaps``, or ``dense``: unique among the cells of one model and seed."""
        return "-".join(part for part in (self.pattern, self.warmstart, self.refiner) if part) or "dense"

    @property
    def full_name(self) -> str:
        """``smollm2_135m-0-row60-wanda-swaps``: unique among all cells."""
        parts = (self.model, self.seed, self.pattern, self.warmstart, self.refiner)
        return "-".join(str(part) for part in parts if part is not None)
