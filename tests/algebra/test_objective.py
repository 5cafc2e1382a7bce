import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from strategies import problems

from prunelib import gram_matrix, output_energy, pruning_error, row_losses
from prunelib.algebra import objective
from prunelib.algebra.objective import checked_layer, refit_losses
from prunelib.errors import NumericalError


@given(problems())
def test_losses_are_those_of_the_definition(p):
    expected = oracles.losses(p.weight.numpy(), p.gram.numpy(), p.mask.numpy())
    size = oracles.losses(p.weight.abs().numpy(), p.gram.abs().numpy(), p.mask.numpy())
    found = row_losses(p.weight, p.gram, p.mask)
    assert found.dtype == torch.float64
    assert (np.abs(found.numpy() - np.maximum(expected, 0)) <= 1e-9 * size).all()


def test_losses_of_many_rows_are_those_of_each_alone():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(2500, 6, generator=generator), torch.randn(40, 6, generator=generator)
    mask, gram = torch.rand(weight.shape, generator=generator) < 0.5, gram_matrix(x)
    pruned = (weight * ~mask).double()
    torch.testing.assert_close(row_losses(weight, gram, mask), ((pruned @ gram.double()) * pruned).sum(dim=1))
    torch.testing.assert_close(refit_losses(weight, gram, weight * mask), row_losses(weight, gram, mask))


def test_the_error_is_that_of_the_layers_outputs():
    x, weight = torch.randn(50, 12), torch.randn(5, 12)
    mask = torch.rand(5, 12) > 0.5
    gram = gram_matrix(x)
    difference = x.double() @ (weight - weight * mask).double().T
    assert pruning_error(weight, gram, mask) == pytest.approx(difference.square().sum().item(), rel=1e-5)
    assert output_energy(weight, gram) == pytest.approx(
        (x.double() @ weight.double().T).square().sum().item(), rel=1e-5
    )
    assert pruning_error(weight, gram, torch.ones_like(mask)) == 0


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_losses_of_what_is_not_finite_are_refused(bad):
    for weight, gram in (
        (torch.ones(1, 2), torch.tensor([[1.0, bad], [bad, 1.0]])),
        (torch.tensor([[1.0, bad]]), torch.eye(2)),
    ):
        with pytest.raises(NumericalError, match="NaN or infinity"):
            row_losses(weight, gram, torch.tensor([[False, True]]))


@pytest.mark.parametrize(
    ("weight", "gram", "message"),
    [
        (torch.ones(2, 3), torch.eye(2), "gram: shape"),
        (torch.ones(3), torch.eye(3), "gram: shape"),
        (torch.tensor([[1.0, float("nan")]]), torch.eye(2), "weight: NaN"),
        (torch.ones(1, 2), torch.tensor([[1.0, float("inf")], [1.0, 1.0]]), "gram: NaN or infinity"),
        (torch.ones(1, 2), torch.tensor([[1.0, 5.0], [0.0, 1.0]]), "gram: not symmetric"),
        (torch.ones(1, 2), torch.diag(torch.tensor([1.0, -1.0])), "gram: not symmetric and positive semidefinite"),
        (torch.ones(1, 2), torch.tensor([[0.0, 1e-30], [1e-30, 1.0]]), "gram: not symmetric and positive semidefinite"),
        (torch.ones(1, 2), torch.tensor([[1e-20, 1e30], [1e30, 1e-20]]), "gram: not symmetric and positive semidef"),
        (torch.ones(1, 2), torch.tensor([[0.0, 1.0], [1.0, 1.0]]), "expected a sum of x x"),
    ],
)
def test_layers_that_cannot_be_are_refused(weight, gram, message):
    with pytest.raises(NumericalError, match=message):
        checked_layer(weight, gram)


def test_a_parameter_is_taken_as_its_values():
    weight, _gram = checked_layer(torch.nn.Parameter(torch.ones(2, 3)), torch.eye(3))
    assert not weight.requires_grad
    assert torch.equal(weight, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("weight", "gram", "mask", "name"),
    [
        (torch.ones(2, 3), torch.eye(3), torch.ones(1, 3).bool(), "mask"),
        (torch.ones(2, 3), torch.eye(3), torch.ones(2, 3), "mask"),
        (torch.ones(2, 3), torch.eye(1), torch.ones(2, 3).bool(), "gram"),
        (torch.ones(3), torch.eye(3), torch.ones(3).bool(), "gram"),
        (torch.ones(2, 3, dtype=torch.complex64), torch.eye(3), torch.ones(2, 3).bool(), "weight"),
        (torch.ones(2, 3, dtype=torch.int64), torch.eye(3), torch.ones(2, 3).bool(), "weight"),
    ],
)
def test_what_would_be_broadcast_or_has_no_meaning_is_refused(weight, gram, mask, name):
    with pytest.raises(NumericalError, match=f"^{name}: "):
        pruning_error(weight, gram, mask)


@pytest.mark.parametrize("strip", [1, 3])
def test_a_fault_is_found_in_any_strip_of_a_gram_matrix(strip, monkeypatch):
    monkeypatch.setattr(objective, "_GRAM_STRIP", strip)
    gram = torch.eye(8)
    checked_layer(torch.ones(2, 8), gram)
    for row, column in ((7, 5), (7, 0), (0, 7), (4, 3)):
        for value, both in ((0.5, False), (1.5, True)):
            faulty = gram.clone()
            faulty[row, column] = value
            if both:
                faulty[column, row] = value
            with pytest.raises(NumericalError, match=r"^gram"):
                checked_layer(torch.ones(2, 8), faulty)
