"""The names of a cell."""

import pytest

from prunelib.cell import Cell
from prunelib.errors import ParamsError


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ({"pattern": "p"}, "seed"),
        ({"seed": 0, "pattern": "p", "refiner": "r"}, "warmstart"),
        ({"seed": 0, "warmstart": "w"}, "pattern"),
    ],
)
def test_a_name_that_is_left_out_is_missed(names, missing):
    with pytest.raises(ParamsError, match=f"^--{missing}: missing"):
        Cell(model="m", **names)
