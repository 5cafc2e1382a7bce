"""A whole model through a warm start, with the weights of a folder and a stand-in for its calibration."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from prunelib import NOfM, PerLayer, PerRow, gram_matrix, ria, select, wanda, warmstarts
from prunelib.calibration.settings import CalibrationInputs
from prunelib.errors import PatternError
from prunelib.masks.checks import check_mask
from prunelib.methods import registry
from prunelib.model.layers import Layer
from prunelib.pruning.warmstart import warmstart_masks
from prunelib.runtime import hashing

CPU = torch.device("cpu")
METHODS = registry.methods(warmstarts)
PATTERNS = [PerRow(sparsity=0.5), PerLayer(sparsity=0.5), NOfM(keep=2, group=4)]
GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = {name: torch.randn(rows, 8, generator=GENERATOR) for name, rows in (("0.q", 4), ("0.fc", 6), ("0.out", 4))}
GRAMS = {name: gram_matrix(torch.randn(30, 8, generator=GENERATOR)) for name in WEIGHTS}


@pytest.fixture
def model(tmp_path):
    """A folder with three layers, ``0.fc`` stored as (inputs, rows), and their calibration."""
    transposed = {name: name == "0.fc" for name in WEIGHTS}
    stored = {f"{name}.weight": w.T.contiguous() if transposed[name] else w for name, w in WEIGHTS.items()}
    save_file(stored, tmp_path / "model.safetensors")
    layers = tuple(
        Layer(
            name=name,
            kind=name[2:],
            block=0,
            tensor=f"{name}.weight",
            transposed=transposed[name],
            rows=len(w),
            inputs=8,
            gram=name,
        )
        for name, w in WEIGHTS.items()
    )
    index = SimpleNamespace(layers=layers, blocks=2)
    calibration = SimpleNamespace(
        index=index, inputs=CalibrationInputs.DENSE, gram=lambda layer: GRAMS[layer.name], provenance={"model": "m"}
    )
    return tmp_path, calibration


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.label)
@pytest.mark.parametrize(("name", "saliency"), [("wanda", wanda), ("ria", ria)])
def test_a_ranking_keeps_the_most_salient_of_every_layer(model, name, saliency, pattern):
    masks = warmstart_masks(*model, pattern, METHODS[name].settings(), CPU)
    assert list(masks) == list(WEIGHTS)
    for layer, weight in WEIGHTS.items():
        assert torch.equal(masks[layer], select(saliency(weight, GRAMS[layer]), pattern))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.read is None])
def test_every_method_gives_every_layer_its_counts(model, name):
    for pattern in PATTERNS:
        if METHODS[name].supports(pattern):
            masks = warmstart_masks(*model, pattern, METHODS[name].settings(), CPU)
            for layer, weight in WEIGHTS.items():
                check_mask(masks[layer], weight, pattern)


def test_random_layers_of_one_shape_differ_and_come_again(model):
    first, again = (warmstart_masks(*model, PATTERNS[0], METHODS["random"].settings(), CPU) for _ in range(2))
    assert not torch.equal(first["0.q"], first["0.out"])
    assert all(torch.equal(first[name], again[name]) for name in WEIGHTS)


def test_given_masks_are_taken_from_their_file(model, tmp_path):
    masks = warmstart_masks(*model, PATTERNS[2], METHODS["wanda"].settings(), CPU)
    save_file(dict(masks), tmp_path / "given")
    path = tmp_path / "given"
    settings = METHODS["given"].settings(path=str(path), sha256=hashing.sha256_file(path))
    found = warmstart_masks(*model, PATTERNS[2], settings, CPU)
    assert all(torch.equal(found[name], masks[name]) for name in WEIGHTS)
    with pytest.raises(PatternError, match=r"0\.q: mask: 8 of 8 groups do not keep exactly 1 of 4"):
        warmstart_masks(*model, NOfM(keep=1, group=4), settings, CPU)


def test_the_layer_that_a_pattern_does_not_fit_is_named(model):
    with pytest.raises(PatternError, match=r"0\.q: pattern 2:3: group 3 does not divide the layer's 8 inputs"):
        warmstart_masks(*model, NOfM(keep=2, group=3), METHODS["wanda"].settings(), CPU)
