"""Linear algebra that is bitwise independent of the number of threads and of global precision settings.

Libraries split long sums over threads in products with few rows, and always in factorisations. If a thread's share of
rows or columns is not a multiple of the vector length, the order of summation may differ. Results that depend on the
number of threads could change a mask from machine to machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.functional import pad

from prunelib.errors import NumericalError
from prunelib.runtime.threads import one_thread

_PANEL = 256  # sums of at most this length are not split over threads
_TILE = 16  # rows and columns; at multiples of it, the order of summation is the same for any number of threads


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return A B for left (rows, n) and right (n, columns), summed panel by panel; as fast as a single product.

    The result is on the device of ``left`` and in its dtype; panels of ``right`` are copied to it one by one.
    """
    rows, columns = len(left), right.shape[1]
    if rows % _TILE:
        left = pad(left, (0, 0, 0, -rows % _TILE))
    with true_float32():
        result = left[:, :_PANEL] @ _brought(right[:_PANEL], left)  # (rows, columns), each up to a multiple of _TILE
        for start in range(_PANEL, len(right), _PANEL):
            panel = slice(start, start + _PANEL)
            result.addmm_(left[:, panel], _brought(right[panel], left))
    return result[:rows, :columns].contiguous()


def _brought(panel: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """Return a panel in whole tiles on the device of ``left``, converted to its dtype there to transfer fewer bytes."""
    panel = panel.to(left.device).to(left.dtype)
    return pad(panel, (0, -panel.shape[1] % _TILE)) if panel.shape[1] % _TILE else panel


@contextmanager
def true_float32() -> Iterator[None]:
    """Multiply in true float32, without TF32 (GPU) or bfloat16 (CPU), whatever the global setting."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def inverse(matrix: torch.Tensor) -> torch.Tensor:
    """Return the inverse of a symmetric positive definite matrix (n, n), by its Cholesky factor; row-major.

    LAPACK returns it column-major, and products of few rows with a column-major matrix are split over threads.

    Raises
    ------
    NumericalError
        If the matrix is not positive definite.
    """
    with one_thread():
        return torch.cholesky_inverse(_cholesky(matrix)).contiguous()


def eigen(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the eigenvalues (n,), ascending, and eigenvectors (n, n), in columns, of a symmetric matrix (n, n).

    Raises
    ------
    NumericalError
        If LAPACK does not find them.
    """
    try:
        with one_thread():
            values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise NumericalError("gram: its eigenvalues are not found, expected a sum of x x^T") from error
    return values, vectors


def inverse_factor(matrix: torch.Tensor) -> torch.Tensor:
    """Return the upper triangular U with U^T U = A^-1, for a symmetric positive definite A (n, n).

    The Cholesky factor of A with rows and columns reversed gives A = R R^T with R upper triangular, and U = R^-1. The
    inverse of A, which would lose accuracy, is never formed.

    Raises
    ------
    NumericalError
        If the matrix is not positive definite.
    """
    with one_thread():
        upper = _cholesky(matrix.flip(0, 1)).flip(0, 1)
        identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        factor: torch.Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
        return factor


def _cholesky(matrix: torch.Tensor) -> torch.Tensor:
    factor: torch.Tensor
    factor, failure = torch.linalg.cholesky_ex(matrix)
    if failure:
        raise NumericalError("gram: not positive definite when damped, expected a sum of x x^T or more damping")
    return factor
