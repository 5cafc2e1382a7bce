"""One combination of the grid, identified by its names in params.yaml."""

from pydantic import model_validator

from prunelib.errors import ParamsError
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

    @model_validator(mode="after")
    def _no_name_is_left_out(self) -> "Cell":
        names = ("seed", "pattern", "warmstart", "refiner")
        given = [name for name in names if getattr(self, name) is not None]
        if missing := [name for name in names[: len(given)] if name not in given]:
            raise ParamsError(f"--{missing[0]}: missing, but --{given[-1]} is given; the dense model has only --model")
        return self

    @property
    def name(self) -> str:
        """``row60-wanda-swaps``, or ``dense``: unique among the cells of one model and seed."""
        return "-".join(part for part in (self.pattern, self.warmstart, self.refiner) if part) or "dense"

    @property
    def key(self) -> str:
        """``smollm2_135m-0-row60-wanda-swaps``, ``smollm2_135m-dense``: unique in a report."""
        seed = [] if self.seed is None else [str(self.seed)]
        return "-".join([self.model, *seed, self.name])

    @property
    def full_name(self) -> str:
        """``smollm2_135m-0-row60-wanda-swaps``: unique among all cells."""
        parts = (self.model, self.seed, self.pattern, self.warmstart, self.refiner)
        return "-".join(str(part) for part in parts if part is not None)
