"""Shared by the CPU backends: numba's settings, results as arrays, chunks of rows on threads, and c = G p."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple, TypeVar

import numpy as np
from numba import njit
from numba.extending import intrinsic

from prunelib.kernels.cpu_cache import kernels_kept
from prunelib.kernels.interface import RowResults

T = TypeVar("T")

_NO_SPECIAL_VALUES = ("nnan", "ninf", "nsz")
_SETTINGS = {"nogil": True, "error_model": "numpy", "fastmath": {*_NO_SPECIAL_VALUES, "contract", "reassoc"}}
inlined = njit(**_SETTINGS, inline="always")
"""Compile a small function into its callers.

A call counts references to every array of its arguments, a quarter of a microsecond for the state of a row.
"""


def compiled(function):
    """Compile a function whose arithmetic has neither NaN nor infinity, once for all processes."""
    with kernels_kept():
        return njit(**_SETTINGS, cache=True)(function)


BLOCKED = 1e30
"""Used instead of infinity, which the compiler's fast-math settings (ninf) rule out."""

_CHUNK_ROWS = 32
# A tile of G of this size fits the core's cache and is read there by all rows of a chunk.
_TILE_BYTES = 512 * 1024
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
    """Return how many whole rows of a matrix fit the core's cache, at least the four that a scan reads at once."""
    return max(4, _TILE_BYTES // int(gram[0].nbytes))


def in_chunks(work: Callable[[slice], T], rows: int, threads: int, chunk_rows: int | None = None) -> Iterator[T]:
    """Call ``work`` on chunks of rows in a pool of threads; yield its results as they finish.

    A row's result must not depend on its chunk, so that the number of threads does not change it.
    """
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
    """Return the lesser of two floats, in the form that LLVM turns into a SIMD reduction (``min`` stays scalar)."""

    def generate(context, builder, signature, arguments):  # noqa: ARG001 - numba's signature
        x, y = arguments
        is_less = builder.fcmp_ordered("<", x, y, flags=_NO_SPECIAL_VALUES)
        return builder.select(is_less, x, y, flags=_NO_SPECIAL_VALUES)

    return a(a, a), generate


# A loop that begins at a computed index stays scalar, since numba checks such an index for wraparound; a loop over a
# slice is compiled to SIMD.
@inlined
def group_columns(group, j):
    """Return the columns of the group of column j, as a slice."""
    low = j - j % group
    return slice(low, low + group)


@inlined
def first_of(values, value):
    """Return the first index that has a value, the last index if none has."""
    # A reduction over all values is compiled to SIMD; a loop that ends at the first match stays scalar.
    first = values.size - 1
    for j in range(values.size):
        first = min(first, j if values[j] == value else values.size)
    return first


@compiled
def correlate(p, columns, gram, corr):
    """Set c = G p in float64, for a vector p (inputs,) that is 0 outside ``columns``."""
    corr[:] = 0.0
    _add_columns(p, columns, gram, slice(0, corr.size), corr)


@compiled
def correlate_rows(p, rows, gram, corr):
    """Set c = G p in float64 for some rows of p and corr (rows, inputs)."""
    inputs, nonzero = len(gram), np.empty(_TILE_ROWS, np.int64)
    for r in rows:
        corr[r] = 0.0
    for left in range(0, inputs, _TILE_COLUMNS):
        columns = slice(left, min(left + _TILE_COLUMNS, inputs))
        for top in range(0, inputs, _TILE_ROWS):
            # All rows read one tile of G while it is in the cache: to read G anew for each row took a quarter of the
            # time of best swaps within groups from 4,096 inputs on.
            for r in rows:
                count = 0
                for j in range(top, min(top + _TILE_ROWS, inputs)):
                    nonzero[count] = j
                    count += p[r, j] != 0
                _add_columns(p[r], nonzero[:count], gram, columns, corr[r, columns])


@compiled
def _add_columns(p, nonzero, gram, part, corr):
    """Add sum_j p_j G[:, j] over the ``nonzero`` j to corr, c at the columns ``part``."""
    whole = nonzero.size - nonzero.size % 4
    # Four at a time: c is loaded and stored once for four columns of G.
    for k in range(0, whole, 4):
        j0, j1, j2, j3 = nonzero[k], nonzero[k + 1], nonzero[k + 2], nonzero[k + 3]
        # G is symmetric: its rows, which are contiguous, serve as columns.
        g0, g1, g2, g3 = gram[j0, part], gram[j1, part], gram[j2, part], gram[j3, part]
        p0, p1, p2, p3 = np.float64(p[j0]), np.float64(p[j1]), np.float64(p[j2]), np.float64(p[j3])
        for i in range(corr.size):
            corr[i] += (p0 * g0[i] + p1 * g1[i]) + (p2 * g2[i] + p3 * g3[i])
    for j in nonzero[whole:]:
        pj, gj = np.float64(p[j]), gram[j, part]
        for i in range(corr.size):
            corr[i] += pj * gj[i]


@compiled
def loss(w, m, corr):
    """Compute a row's loss p^T c, with p its pruned part and c = G p."""
    total = 0.0
    for j in range(w.size):
        total += 0.0 if m[j] else w[j] * corr[j]
    return max(total, 0.0)
