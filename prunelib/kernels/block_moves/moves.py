"""Moves: how a group of n of m gets from one pattern to another, the same for all groups."""

from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from prunelib.masks.patterns import Groups


class Moves(NamedTuple):
    """Each move's places in the order "kept, then pruned": places (moves, most) int64, filled up; and their number.

    The first half of a move's places are pruned, the second half restored.
    """

    places: np.ndarray
    number: np.ndarray


def moves_of(groups: Groups) -> Moves:
    """All moves of a group, those of the fewest places first."""
    kept, pruned = range(groups.keep), range(groups.keep, groups.size)
    most = min(len(kept), len(pruned))
    found = [
        out + back for n in range(1, most + 1) for out, back in product(combinations(kept, n), combinations(pruned, n))
    ]
    places = np.zeros((len(found), 2 * most), np.int64)
    for row, move in zip(places, found, strict=True):
        row[: len(move)] = move
    return Moves(places, np.array([len(move) for move in found]))
