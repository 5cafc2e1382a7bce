"""Reading beside a forward, on streams that only write down who waits for whom; on real ones in test_on_gpu.py."""

import contextlib
import weakref

import pytest
import torch
from families import random_windows, save, tiny_model

from prunelib.calibration import accumulation, side_stream
from prunelib.calibration.side_stream import SideStreamReader
from prunelib.errors import ModelError
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.structure import find_layers

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Stream:
    """Does everything at once."""

    def __init__(self, name, log):
        self.name, self.log, self.events = name, log, 0

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self):
        self.events += 1
        return self.events

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for read {event}")

    def synchronize(self):
        self.log.append(f"all wait for {self.name}")


@pytest.fixture
def log(monkeypatch):
    """What streams wait for, in order."""
    log = []
    side, main = Stream("side", log), Stream("main", log)
    monkeypatch.setattr(side_stream, "_side_stream", lambda _device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: contextlib.nullcontext())
    return log


def statistics(model, folder, device, monkeypatch):
    """Those of the first block's inputs, read on a device while the model runs on the processor."""
    index, windows = find_layers(model, folder), random_windows(samples=6, length=24)
    forward = BlockwiseForward(model, index.block_list, windows.split(2), CPU, 0)
    monkeypatch.setattr(accumulation, "SideStreamReader", lambda _device: SideStreamReader(device))
    return accumulation.accumulate_pass(forward, index.readers(0), [range(2), range(2, 3)])


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_matrices_are_those_that_are_read_at_once(family, log, tmp_path, monkeypatch):
    model = tiny_model(family)
    folder = save(model, tmp_path)
    found, expected = (statistics(model, folder, device, monkeypatch) for device in (GPU, CPU))
    assert log
    for part, expected_part in zip(found, expected, strict=True):
        assert part.keys() == expected_part.keys()
        for name, (found_gram, found_mean, tokens) in part.items():
            assert torch.equal(found_gram, expected_part[name].gram)
            assert torch.equal(found_mean, expected_part[name].mean)
            assert tokens == expected_part[name].tokens


def test_what_is_read_has_been_made_and_is_held_until_it_is_read(log):
    aside, held = SideStreamReader(GPU), []
    for number in (1, 2):
        inputs = torch.ones(2)
        held.append(weakref.ref(inputs))
        aside.read("layer", inputs, lambda x, n=number: log.append(f"reads {n}: {len(x)}"))
        del inputs
    assert log == ["side waits for main", "reads 1: 2", "side waits for main", "reads 2: 2"]
    assert all(inputs() is not None for inputs in held)
    log.clear()
    aside.finish()
    assert log == ["main waits for read 1", "main waits for read 2"]
    assert all(inputs() is None for inputs in held)


def test_a_failure_is_passed_on_when_nothing_is_read_any_more(log):
    def fail():
        with SideStreamReader(GPU) as aside:
            aside.read("layer", torch.ones(2), lambda x: log.append("reads"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert log == ["side waits for main", "reads", "all wait for side"]


def test_a_forward_that_is_too_far_ahead_waits(log, monkeypatch):
    monkeypatch.setattr(side_stream, "WAITING_BYTES", 20)
    aside = SideStreamReader(GPU)
    for size in (3, 2, 1, 100, 1):
        log.append(size)
        aside.read("layer", torch.ones(size), lambda x: None)
    released = [entry for entry in log if entry != "side waits for main"]
    first, second, third, fourth = (f"main waits for read {n}" for n in (1, 2, 3, 4))
    assert released == [3, 2, 1, first, 100, second, third, 1, fourth]


def test_a_model_that_changes_its_inputs_is_refused_where_they_are_read_later(log, tmp_path, monkeypatch):
    model = tiny_model("llama")
    folder = save(model, tmp_path)

    def change_inputs(_module, args, _outputs):
        args[0].add_(1)

    model.model.layers[0].mlp.down_proj.register_forward_hook(change_inputs)
    statistics(model, folder, CPU, monkeypatch)
    with pytest.raises(ModelError, match=r"down_proj: the model changes its inputs in place"):
        statistics(model, folder, GPU, monkeypatch)
