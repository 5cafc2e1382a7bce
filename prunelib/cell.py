"""The names that tell one combination of the grid from the others."""

from prunelib.settings import Settings


class Cell(Settings):
    """One combination of the grid, by its names in params.yaml; the dense model has only a model.

    ``seed`` is that of the calibration draw.
    """

    model: str
    seed: int | None = None
    pattern: str | None = None
    warmstart: str | None = None
    refiner: str | None = None

    @property
    def name(self) -> str:
        """``row60-wanda-swaps``, or ``dense``: what a cell is called among those of one model and seed."""
        return "-".join(part for part in (self.pattern, self.warmstart, self.refiner) if part) or "dense"

    @property
    def full_name(self) -> str:
        """``smollm2_135m-0-row60-wanda-swaps``: what a cell is called among all."""
        parts = (self.model, self.seed, self.pattern, self.warmstart, self.refiner)
        return "-".join(str(part) for part in parts if part is not None)
