"""Calibration of a whole model that is stopped at any write, and goes on."""

import pytest
from families import random_windows, save, tiny_model
from runs import Bar, stopped_at_each_write

from prunelib.calibration.artifact import write_tokens
from prunelib.calibration.assembly import Assembly
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.whole_model import calibrate_model
from prunelib.model import blockwise
from prunelib.model.structure import find_layers
from prunelib.runtime.machine import machine

WINDOWS = random_windows(samples=5, length=12).split([3, 2])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny = tiny_model("llama")
    return tiny, save(tiny, folder), find_layers(tiny, folder)


def calibrate(model, scratch, windows=WINDOWS):
    tiny, folder, index = model
    settings, bar = CalibrationSettings(text="ours", samples=3, length=12, batch=2), Bar()
    write_tokens(scratch / "calibration", *windows, {"model": "abc", "settings": settings.model_dump()})
    assembly = Assembly(scratch / "calibration", folder, index, settings, "cpu")
    calibrate_model(tiny, index, windows, settings, assembly, scratch, machine(), bar.advance)
    assembly.finish()
    return {file.name: file.read_bytes() for file in (scratch / "calibration").iterdir()}, bar.done


@pytest.mark.parametrize(("seconds", "writes"), [(0.0, 9), (60.0, 7)])
def test_what_goes_on_after_any_write_ends_the_same(model, tmp_path, monkeypatch, seconds, writes):
    monkeypatch.setattr(blockwise, "SECONDS_BETWEEN_SAVES", seconds)
    expected, done = calibrate(model, tmp_path / "whole")
    assert done == 2 * 5
    stops = 0
    for last in stopped_at_each_write(monkeypatch, lambda last: calibrate(model, tmp_path / str(last))):
        found, done = calibrate(model, tmp_path / str(last))
        assert found == expected
        assert done <= 2 * 5
        stops += 1
    assert stops == writes


def test_without_held_out_windows_nothing_is_held_out(model, tmp_path):
    files, done = calibrate(model, tmp_path / "a", (WINDOWS[0], WINDOWS[1][:0]))
    assert done == 2 * 3
    assert b'held_out_count": 0' in files["block_000.safetensors"].replace(b"\\", b"")


def test_a_damaged_block_is_calibrated_again_whatever_was_saved_after_it(model, tmp_path, monkeypatch):
    monkeypatch.setattr(blockwise, "SECONDS_BETWEEN_SAVES", 0.0)
    expected, _ = calibrate(model, tmp_path)
    (tmp_path / "calibration" / "block_000.safetensors").write_bytes(b"damaged")
    assert calibrate(model, tmp_path)[0] == expected
