import numpy as np
import pytest
import torch
from hypothesis import given
from strategies import problems

from prunelib import RIA, magnitude, ria, select, wanda, warmstarts
from prunelib.methods import registry


@given(problems())
def test_saliencies_are_those_of_the_papers(p):
    W, norms = p.weight.double().abs().numpy(), np.sqrt(p.gram.diagonal().double().numpy())
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(W / W.sum(1, keepdims=True)) + np.nan_to_num(W / W.sum(0, keepdims=True))
    np.testing.assert_allclose(magnitude(p.weight).numpy(), W, rtol=1e-6)
    np.testing.assert_allclose(wanda(p.weight, p.gram).numpy(), W * norms, rtol=1e-6)
    np.testing.assert_allclose(ria(p.weight, p.gram).numpy(), shares * norms**0.5, rtol=1e-5)
    np.testing.assert_allclose(ria(p.weight, p.gram, RIA(exponent=1)).numpy(), shares * norms, rtol=1e-5)


@given(problems())
def test_every_warm_start_keeps_exact_counts_on_degenerate_layers(p):
    for method in layer_methods():
        mask = method.layer_mask(p.weight, p.gram, p.pattern, method.settings())
        size, keep = p.pattern.groups(*p.weight.shape)
        assert (mask.view(-1, size).sum(-1) == keep).all()


def layer_methods():
    """Those that look at one layer at a time, unlike masks that are given for all of a model."""
    return [method for method in registry.methods(warmstarts).values() if method.read is None]


def test_a_zero_row_and_column_score_zero_and_not_nan():
    weight = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    scores = ria(weight, torch.eye(3))
    assert scores.isfinite().all()
    assert scores[0].tolist() == [0, 0, 0]
    assert scores[1, 0] == 0


def test_half_precision_weights_are_scored_in_float32():
    weight = torch.randn(4, 8).bfloat16()
    assert wanda(weight, torch.eye(8)).dtype == torch.float32
    torch.testing.assert_close(magnitude(weight), weight.float().abs())


def test_dead_inputs_are_pruned_first_by_wanda():
    gram = torch.diag(torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert select(wanda(torch.tensor([[9.0, 1.0, 1.0, 9.0]]), gram), p_half()).tolist() == [[False, True, True, False]]


def p_half():
    from prunelib import PerRow

    return PerRow(sparsity=0.5)


@pytest.mark.parametrize("name", ["magnitude", "wanda", "random", "ria"])
def test_the_registry_is_the_folder(name):
    assert registry.methods(warmstarts)[name].settings().method == name
