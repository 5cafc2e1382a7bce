"""A calibration in shards against one over all windows."""

import warnings

import pytest
import torch
from families import random_windows, save, tiny_model
from runs import Bar, stopped_at_each_write

from prunelib.calibration.artifact import Calibration, read_grams
from prunelib.calibration.settings import CalibrationInputs, CalibrationSettings
from prunelib.calibration.shards import ShardCalibration, calibrate_in_shards
from prunelib.calibration.statistics import InputStatistics
from prunelib.model.structure import find_layers, load_model

WINDOWS, HELD_OUT = random_windows(samples=7, length=12).split([5, 2])
SETTINGS = CalibrationSettings(text="ours", samples=5, length=12, batch=2, held_out_samples=2)


@pytest.fixture(scope="module", params=["llama", "mixtral"])
def model(request, tmp_path_factory):
    """The folder of a model, and its layers."""
    folder = save(tiny_model(request.param), tmp_path_factory.mktemp(request.param))
    return folder, find_layers(load_model(folder, "float32", "cpu"), folder)


def drawn_from(settings):
    return {"model": "abc", "settings": settings.model_dump()}


def calibrate(model, scratch, shards, windows=(WINDOWS, HELD_OUT), **changes):
    scratch.mkdir(exist_ok=True)
    folder, index = model
    settings, bar = SETTINGS.model_copy(update={"shards": shards, **changes}), Bar()
    calibration = ShardCalibration(folder, "float32", index, settings, scratch)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*inputs of experts received fewer")
        return calibrate_in_shards(calibration, windows, drawn_from(settings), bar), bar.done


@pytest.mark.parametrize("shards", [2, 3, 5])
@pytest.mark.parametrize("min_tokens", [1, 20])
def test_shards_add_up_to_the_whole(model, tmp_path, shards, min_tokens):
    whole, _ = calibrate(model, tmp_path / "whole", 1, min_tokens=min_tokens)
    added, done = calibrate(model, tmp_path / "added", shards, min_tokens=min_tokens)
    assert done == 2 * 7
    for block in range(2):
        for found, expected in zip(read_grams(added, block), read_grams(whole, block), strict=True):
            assert found.keys() == expected.keys()
            for name, statistics in expected.items():
                assert found[name].tokens == statistics.tokens
                torch.testing.assert_close(found[name].gram, statistics.gram, rtol=1e-4, atol=1e-3)
                torch.testing.assert_close(found[name].mean, statistics.mean, rtol=1e-4, atol=1e-5)
                assert torch.equal(found[name].gram, found[name].gram.T)
    one, other = (Calibration.open(folder, "abc") for folder in (whole, added))
    expected = {**one.provenance, "calibration": {**one.provenance["calibration"], "shards": shards}}
    assert other.provenance == expected
    assert other.energies == pytest.approx(one.energies, rel=1e-5)


def test_experts_that_saw_few_tokens_are_named_and_pruned_as_if_independent(tmp_path):
    folder = save(tiny_model("mixtral"), tmp_path / "model")
    index = find_layers(load_model(folder, "float32", "cpu"), folder)
    settings = SETTINGS.model_copy(update={"min_tokens": 20})
    calibration = ShardCalibration(folder, "float32", index, settings, tmp_path)
    with pytest.warns(UserWarning, match=r"inputs of experts received fewer than calibration\.min_tokens = 20 tok"):
        whole = calibrate_in_shards(calibration, (WINDOWS, HELD_OUT), drawn_from(settings), Bar())
    experts = {layer.gram: layer for layer in index.layers if layer.fused is not None}
    for block in range(2):
        for name, statistics in read_grams(whole, block)[0].items():
            few = name in experts and statistics.tokens < 20
            assert few == torch.equal(statistics.gram, torch.eye(len(statistics.gram)))


def test_without_held_out_windows_nothing_is_held_out(model, tmp_path):
    added, _ = calibrate(model, tmp_path / "added", 2, (WINDOWS, HELD_OUT[:0]))
    assert all(read_grams(added, block)[1] == {} for block in range(2))


def test_inputs_that_depend_on_what_is_pruned_are_left_to_refinement(model, tmp_path):
    added, _ = calibrate(model, tmp_path / "added", 2, inputs=CalibrationInputs.SEQUENTIAL)
    assert {file.name for file in added.iterdir()} == {"tokens.safetensors", "layers.json", "energies.json"}


def test_shards_that_were_stopped_at_any_write_go_on(model, tmp_path, monkeypatch):
    def files(name):
        return {file.name: file.read_bytes() for file in calibrate(model, tmp_path / str(name), 2)[0].iterdir()}

    expected = files("whole")
    stops = [files(last) == expected for last in stopped_at_each_write(monkeypatch, files)]
    assert all(stops)
    assert len(stops) == 1 + 2 * 2 + 2 * 2 + 2  # tokens, shards' blocks, blocks and notes of the whole, its layers


def test_statistics_of_no_tokens_join_with_any():
    none = InputStatistics(torch.zeros(2, 2), torch.zeros(2), 0)
    some = InputStatistics(torch.eye(2), torch.ones(2), 3)
    for joined in (none.joined(some), some.joined(none)):
        assert torch.equal(joined.gram, some.gram)
        assert torch.equal(joined.mean, some.mean)
        assert joined.tokens == 3
    assert none.joined(none).mean.isfinite().all()


def test_more_shards_than_windows_are_refused():
    with pytest.raises(ValueError, match="shards must be at most samples: 6 > 5"):
        CalibrationSettings(**{**SETTINGS.model_dump(), "shards": 6})
