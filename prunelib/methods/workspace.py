"""Memory that a refiner declares."""

from typing import NamedTuple


class Workspace(NamedTuple):
    """Peak memory of a refiner in addition to a layer and its Gram matrix.

    ``squares`` counts float32 matrices (inputs, inputs); ``weight_bytes`` is in bytes per weight.
    """

    squares: int
    weight_bytes: int


SWAPS = Workspace(squares=5, weight_bytes=32)
