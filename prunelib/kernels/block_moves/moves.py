"""Moves: all ways from one pattern of a group to another, as positions, the same for all groups.

Positions number the columns of a group in the order "kept, then pruned": position 0 is the first kept column.
"""

from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from prunelib.masks.patterns import Groups


class Moves(NamedTuple):
    """The positions that each move flips: positions (moves, most) int64, padded with 0, and number (moves,) of them.

    The first half of a move's positions are pruned, the second half restored.
    """

    positions: np.ndarray
    number: np.ndarray


def moves_of(groups: Groups) -> Moves:
    """List all moves of a group, those that flip the fewest columns first."""
    kept, pruned = range(groups.keep), range(groups.keep, groups.size)
    most = min(len(kept), len(pruned))
    found = [
        out + back for n in range(1, most + 1) for out, back in product(combinations(kept, n), combinations(pruned, n))
    ]
    positions = np.zeros((len(found), 2 * most), np.int64)
    for row, move in zip(positions, found, strict=True):
        row[: len(move)] = move
    return Moves(positions, np.array([len(move) for move in found]))
