"""What the compiled operations share: the compiler's settings, chunks of rows on threads, and c = G p."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple, TypeVar

import numpy as np
from numba import njit
from numba.extending import intrinsic

from prunelib.kernels.interface import RowResults

T = TypeVar("T")

_NO_SPECIAL_VALUES = ("nnan", "ninf", "nsz")
_SETTINGS = {"nogil": True, "error_model": "numpy", "fastmath": {*_NO_SPECIAL_VALUES, "contract", "reassoc"}}
compiled = njit(**_SETTINGS, cache=True)
"""Compiles a function that meets neither NaN nor infinity."""
inlined = njit(**_SETTINGS, inline="always")
"""Compiles one into its callers: a call counts references to all arrays it gets, as long as a loop over a row takes."""

BLOCKED = 1e30
"""Stands for infinity, which fast arithmetic must not meet."""

_CHUNK_ROWS = 32
_TILE_BYTES = 512 * 1024  # as much of G as fits the core's cache
_TILE_COLUMNS = 2048
_TILE_ROWS = _TILE_BYTES // (4 * _TILE_COLUMNS)


class Figures(NamedTuple):
    """Views of :class:`RowResults`, for kernels to fill in.

    mask is (rows, inputs) bool; swaps and sweeps int64, loss_before and loss_after float64, optimal bool: (rows,) each.
    """

    mask: np.ndarray
    swaps: np.ndarray
    sweeps: np.ndarray
    loss_before: np.ndarray
    loss_after: np.ndarray
    optimal: np.ndarray

    @classmethod
    def of(cls, results: RowResults) -> "Figures":
        """View results on the CPU without a copy."""
        return cls(**{name: getattr(results, name).numpy() for name in cls._fields})


def tile_rows(gram: np.ndarray) -> int:
    """How many whole rows of a matrix fit the core's cache, four at least."""
    return max(4, _TILE_BYTES // int(gram[0].nbytes))


def in_chunks(work: Callable[[slice], T], rows: int, threads: int, chunk_rows: int | None = None) -> Iterator[T]:
    """What ``work`` gives for each chunk of rows, as they are finished; rows do not depend on their chunk."""
    size = chunk_rows or _CHUNK_ROWS
    chunks = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    pool = ThreadPoolExecutor(threads)
    try:
        for future in as_completed([pool.submit(work, chunk) for chunk in chunks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@intrinsic
def lesser(typing_context, a, b):  # noqa: ARG001 - numba's signature
    """The lesser of two floats, in the one form that LLVM turns into a SIMD reduction (``min`` stays scalar)."""

    def generate(context, builder, signature, arguments):  # noqa: ARG001 - numba's signature
        x, y = arguments
        is_less = builder.fcmp_ordered("<", x, y, flags=_NO_SPECIAL_VALUES)
        return builder.select(is_less, x, y, flags=_NO_SPECIAL_VALUES)

    return a(a, a), generate


@inlined
def places_of(group, j):
    """The places of the group, one of so many places each, that has a place j."""
    low = j - j % group
    return slice(low, low + group)


@inlined
def first_of(values, value):
    """The first place that has a value, the last place if none has."""
    first = values.size - 1
    for j in range(values.size):
        first = min(first, j if values[j] == value else values.size)
    return first


@compiled
def correlate(p, places, gram, corr):
    """Set c = G p in float64, for a vector p (inputs,) that is 0 outside ``places``."""
    corr[:] = 0.0
    _add_columns(p, places, gram, slice(0, corr.size), corr)


@compiled
def correlate_rows(p, rows, gram, corr):
    """Set c = G p in float64 for some rows of p and corr (rows, inputs), which all read a tile of G before the next."""
    inputs, places = len(gram), np.empty(_TILE_ROWS, np.int64)
    for r in rows:
        corr[r] = 0.0
    for left in range(0, inputs, _TILE_COLUMNS):
        columns = slice(left, min(left + _TILE_COLUMNS, inputs))
        for top in range(0, inputs, _TILE_ROWS):
            for r in rows:
                count = 0
                for j in range(top, min(top + _TILE_ROWS, inputs)):
                    places[count] = j
                    count += p[r, j] != 0
                _add_columns(p[r], places[:count], gram, columns, corr[r, columns])


@compiled
def _add_columns(p, places, gram, part, corr):
    """Add to a part of c what some places of p bring, four columns of G at a time."""
    whole = places.size - places.size % 4
    for k in range(0, whole, 4):
        j0, j1, j2, j3 = places[k], places[k + 1], places[k + 2], places[k + 3]
        g0, g1, g2, g3 = gram[j0, part], gram[j1, part], gram[j2, part], gram[j3, part]
        p0, p1, p2, p3 = np.float64(p[j0]), np.float64(p[j1]), np.float64(p[j2]), np.float64(p[j3])
        for i in range(corr.size):
            corr[i] += (p0 * g0[i] + p1 * g1[i]) + (p2 * g2[i] + p3 * g3[i])
    for j in places[whole:]:
        pj, gj = np.float64(p[j]), gram[j, part]
        for i in range(corr.size):
            corr[i] += pj * gj[i]


@compiled
def loss(w, m, corr):
    """The loss p^T c of a row, with p the pruned weights and c = G p."""
    total = 0.0
    for j in range(w.size):
        total += 0.0 if m[j] else w[j] * corr[j]
    return max(total, 0.0)
