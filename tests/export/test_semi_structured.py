"""Conversion to torch's semi-structured weights: refused without its GPU, and only what is 2:4."""

import pytest
import torch
from families import tiny_model
from torch import nn

from prunelib.errors import ModelError
from prunelib.export import semi_structured
from prunelib.export.semi_structured import to_semi_structured
from prunelib.masks.patterns import NOfM
from prunelib.masks.selection import select
from prunelib.model.structure import find_layers


def halved(family="llama"):
    """A model with all layers at 2:4 but the last, and its layers."""
    model = tiny_model(family, dtype=torch.bfloat16)
    layers = find_layers(model).layers
    for layer in layers[:-1]:
        weight = layer.weight(model)
        weight.mul_(select(weight.abs(), NOfM(keep=2, group=4)))
    return model, layers


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line_and_no_change():
    model, _ = halved()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.raises(ModelError, match=r"cpu.*no GPU.*8\.0") as refused:
        to_semi_structured(model)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The CPU taken for a GPU with sparse units; a weight is converted by a copy."""
    converted = []

    def convert(weight):
        converted.append(weight)
        return weight.clone()

    monkeypatch.setattr(semi_structured, "has_sparse_units", lambda: True)
    monkeypatch.setattr(semi_structured, "_DEVICE", "cpu")
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", convert)
    return converted


def test_what_is_two_of_four_is_converted_and_the_rest_has_a_reason(as_on_a_gpu):
    model, layers = halved()
    tokens = torch.arange(8)[None]
    before = model(tokens).logits
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    weights = {name: module.weight for name, module in linear.items()}
    found = to_semi_structured(model)
    assert set(found.converted) == {layer.name for layer in layers[:-1]}
    assert found.dense.keys() == {layers[-1].name, "lm_head"}
    assert all("2:4" in reason for reason in found.dense.values())
    assert {name for name, module in linear.items() if module.weight is not weights[name]} == set(found.converted)
    assert not any(linear[name].weight.requires_grad for name in found.converted)
    assert torch.equal(model(tokens).logits, before)


def test_a_weight_that_torch_refuses_stays_dense(as_on_a_gpu, monkeypatch):
    model, layers = halved()
    refused = layers[2].weight(model).clone()

    def convert(weight):
        if torch.equal(weight, refused):
            raise RuntimeError("shape not supported\nby this kernel")
        return weight.clone()

    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", convert)
    found = to_semi_structured(model)
    assert layers[2].name not in found.converted
    assert found.dense[layers[2].name] == "shape not supported"


def test_other_dtypes_and_layers_stay_dense(as_on_a_gpu):
    model, _ = halved()
    found = to_semi_structured(model.float())
    assert found.converted == ()
    assert all("float32" in reason for reason in found.dense.values())
    model, _ = halved("gpt2")
    assert to_semi_structured(model).converted == ()


@pytest.mark.parametrize("inputs", [6, 2])
def test_inputs_that_are_no_groups_of_four_stay_dense(as_on_a_gpu, inputs):
    found = to_semi_structured(nn.Sequential(nn.Linear(inputs, 4, dtype=torch.bfloat16)))
    assert found.dense == {"0": "not 2:4"}
