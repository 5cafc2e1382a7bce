"""Memory that a refiner declares; without torch, so that a plan needs none."""

from typing import NamedTuple


class Workspace(NamedTuple):
    """What a refiner needs in memory at most, in addition to a layer and its Gram matrix.

    ``squares`` are float32 matrices (inputs, inputs); ``weight_bytes`` are for each weight.
    """

    squares: int
    weight_bytes: int


SWAPS = Workspace(squares=5, weight_bytes=32)
