"""Which of some rows is the best in a column, beyond the standard error of the difference."""

from collections.abc import Callable, Iterable, Sequence
from math import hypot, sqrt

from prunelib.reporting.rows import ACCURACY, Row

Best = Callable[[Iterable[float]], float]


def leaders(rows: Sequence[Row], key: str, best: Best, show: Callable[[float], str]) -> list[Row]:
    """Return the rows whose value reads as the best; none if that of another row is within the standard error.

    Parameters
    ----------
    key
        Column of results.csv.
    best
        ``min`` or ``max``.
    show
        Format of a value: rows tie if their values read the same.
    """
    known = [row for row in rows if key in row.values]
    if len(known) < 2:
        return []
    leader = best(row.values[key] for row in known)
    first = next(row for row in known if row.values[key] == leader)
    tied = [row for row in known if show(row.values[key]) == show(leader)]
    deviation = _pooled_deviation(known, key)
    apart = (
        abs(row.values[key] - leader) > hypot(_error(row, key, deviation), _error(first, key, deviation))
        for row in known
        if row not in tied
    )
    return tied if all(apart) else []


def _error(row: Row, key: str, deviation: float) -> float:
    """Return the standard error of a row's mean; that of an accuracy is over its items, not over draws."""
    if key.startswith(ACCURACY):
        return row.spreads.get(key, 0.0)
    return row.spreads.get(key, deviation) / sqrt(max(row.draws_of(key), 1))


def _pooled_deviation(rows: Sequence[Row], key: str) -> float:
    """Return the standard deviation over draws, pooled over the rows that have several; 0 if none has."""
    known = [(row.draws_of(key) - 1, row.spreads[key]) for row in rows if key in row.spreads and row.draws_of(key) > 1]
    freedom = sum(count for count, _ in known)
    return sqrt(sum(count * spread**2 for count, spread in known) / freedom) if freedom else 0.0
