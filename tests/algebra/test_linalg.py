"""Products, inverses and factors: right, and the same bits for any number of threads."""

import pytest
import torch

from prunelib.algebra.linalg import eigen, inverse, inverse_factor, product
from prunelib.errors import NumericalError


def matrices(rows, inputs, dtype=torch.float64, seed=0):
    """A (rows, inputs) and a positive definite H (inputs, inputs)."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(rows, inputs, generator=generator, dtype=torch.float64)
    X = torch.randn(2 * inputs, inputs, generator=generator, dtype=torch.float64)
    return A.to(dtype), (X.T @ X).to(dtype)


@pytest.mark.parametrize("inputs", [1, 255, 256, 257, 700])
def test_a_product_of_panels_is_the_product(inputs):
    A, H = matrices(3, inputs)
    torch.testing.assert_close(product(A, H), A @ H)
    torch.testing.assert_close(product(A, H[:, :0]), A @ H[:, :0])


@pytest.mark.parametrize("inputs", [1, 2, 40])
def test_the_factor_is_upper_triangular_and_its_square_the_inverse(inputs):
    _, H = matrices(1, inputs)
    U = inverse_factor(H)
    assert torch.equal(U, U.triu())
    torch.testing.assert_close(U.T @ U @ H, torch.eye(inputs, dtype=torch.float64))
    torch.testing.assert_close(inverse(H) @ H, torch.eye(inputs, dtype=torch.float64))


@pytest.mark.parametrize("inputs", [1, 2, 40])
def test_eigenvectors_are_orthogonal_and_give_the_matrix_back(inputs):
    _, H = matrices(1, inputs)
    values, vectors = eigen(H)
    assert (values.diff() >= 0).all()
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(inputs, dtype=torch.float64))
    torch.testing.assert_close((vectors * values) @ vectors.T, H)


def test_a_matrix_without_eigenvalues_is_refused():
    with pytest.raises(NumericalError, match="eigenvalues"):
        eigen(torch.full((3, 3), torch.nan))


@pytest.mark.parametrize("invert", [inverse, inverse_factor])
def test_what_is_not_positive_definite_is_refused(invert):
    with pytest.raises(NumericalError, match="not positive definite when damped"):
        invert(torch.diag(torch.tensor([1.0, -1.0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_of_threads_changes_no_bit(dtype):
    A, H = matrices(8, 600, dtype)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append((product(A, H), inverse(H), inverse_factor(H), *eigen(H)))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, another) for one, another in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 5, 7, 11, 17, 40])
@pytest.mark.parametrize("inputs", [24, 100, 300])
def test_the_number_of_threads_changes_no_bit_of_a_product_of_any_size(dtype, rows, inputs):
    A, H = matrices(rows, inputs, dtype)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3, 4, 8, 12):
        torch.set_num_threads(threads)
        results.append(product(A, H))
    torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.usefixtures("precision")
def test_global_matmul_settings_change_no_bit_of_a_product():
    A, H = matrices(300, 300, torch.float32)
    torch.set_float32_matmul_precision("highest")
    exact = product(A, H)
    for setting in ("high", "medium"):
        torch.set_float32_matmul_precision(setting)
        assert torch.equal(product(A, H), exact)
        assert torch.get_float32_matmul_precision() == setting
