"""Calibration of a whole model that is stopped at any write, and goes on."""

import itertools

import pytest
from families import random_windows, save, tiny_model

from prunelib import store
from prunelib.calibration.accumulation import calibrate_model
from prunelib.calibration.gram import CalibrationSettings
from prunelib.model import blockwise
from prunelib.model.structure import find_layers

WINDOWS = random_windows(samples=5, length=12).split([3, 2])


class Bar:
    """Counts what is told."""

    def __init__(self):
        self.done = 0

    def advance(self, amount):
        self.done += amount


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny = tiny_model("llama")
    return tiny, save(tiny, folder), find_layers(tiny, folder)


def calibrate(model, scratch, windows=WINDOWS):
    scratch.mkdir(exist_ok=True)
    bar = Bar()
    settings = CalibrationSettings(text="ours", samples=3, length=12, batch=2)
    folder = calibrate_model(*model, windows, settings, {"model": "abc"}, scratch, bar.advance)
    return {file.name: file.read_bytes() for file in folder.iterdir()}, bar.done


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_what_goes_on_after_any_write_ends_the_same(model, tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(blockwise, "SECONDS_BETWEEN_SAVES", seconds)
    expected, done = calibrate(model, tmp_path / "whole")
    assert done == 2 * 5
    replacing, stopped = store.replacing, 0
    for last in itertools.count():
        writes = itertools.count()

        def write_or_stop(path, last=last, writes=writes):
            if next(writes) >= last:
                raise KeyboardInterrupt
            return replacing(path)

        with monkeypatch.context() as patch:
            patch.setattr(store, "replacing", write_or_stop)
            try:
                calibrate(model, tmp_path / str(last))
                break
            except KeyboardInterrupt:
                stopped += 1
        found, done = calibrate(model, tmp_path / str(last))
        assert found == expected
        assert done <= 2 * 5
    assert stopped >= 7


def test_without_held_out_windows_nothing_is_held_out(model, tmp_path):
    files, done = calibrate(model, tmp_path / "a", (WINDOWS[0], WINDOWS[1][:0]))
    assert done == 2 * 3
    assert b'held_out_count": 0' in files["block_000.safetensors"].replace(b"\\", b"")
