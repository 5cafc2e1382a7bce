"""On a machine with a GPU: a model is calibrated, measured and exported as on the processor."""

import pytest
import torch
from families import random_windows, save, tiny_model
from runs import Bar
from torch import nn
from training import RATE, train, trainable

from prunelib.calibration import side_stream as beside
from prunelib.calibration.artifact import read_grams
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.shards import ShardCalibration, calibrate_in_shards
from prunelib.calibration.side_stream import SideStreamReader
from prunelib.evaluation.perplexity import perplexity
from prunelib.export.semi_structured import has_sparse_units, to_semi_structured, unconvertible
from prunelib.export.verification import verify
from prunelib.masks.patterns import NOfM
from prunelib.masks.selection import select
from prunelib.model.structure import find_layers
from prunelib.pruning.in_memory import prune
from prunelib.runtime.machine import machine
from prunelib.training.keep_masks import KeepMasks

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore:.*inputs of experts received fewer"),
]

WINDOWS = random_windows(samples=6, length=24)
SETTINGS = CalibrationSettings(text="ours", samples=6, length=24, batch=2)


@pytest.fixture
def on(monkeypatch):
    """Choose the device for what follows."""

    def choose(device):
        monkeypatch.setenv("PRUNELIB_DEVICE", device)
        machine.cache_clear()

    return choose


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_gram_matrices_are_those_of_the_processor(family, on, tmp_path):
    folder = save(tiny_model(family), tmp_path / "model")
    index, grams = find_layers(tiny_model(family), folder), {}
    for device in ("cpu", "cuda"):
        on(device)
        scratch = tmp_path / device
        scratch.mkdir()
        calibration = ShardCalibration(folder, "float32", index, SETTINGS, scratch)
        drawn_from = {"model": "abc", "settings": SETTINGS.model_dump()}
        whole = calibrate_in_shards(calibration, (WINDOWS, WINDOWS[:0]), drawn_from, Bar())
        grams[device] = [read_grams(whole, block)[0] for block in range(index.blocks)]
    for found, expected in zip(grams["cuda"], grams["cpu"], strict=True):
        for name, statistics in expected.items():
            scale = statistics.gram.diagonal().mean()
            torch.testing.assert_close(found[name].gram / scale, statistics.gram / scale, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_blocks_are_reconstructed_as_on_the_processor(family):
    errors = {}
    for device in ("cpu", "cuda"):
        model = tiny_model(family)
        steps = ["none", {"method": "block_reconstruction", "held_out": 0, "epochs": 2}]
        result = prune(model, None, WINDOWS, "60%", refiner=steps, device=device, progress=False)
        errors[device] = [block.error_after for block in result.reconstructions]
        assert {str(each.device) for each in model.parameters()} == {"cpu"}
        assert all(block.error_after < block.error_before for block in result.reconstructions)
    assert errors["cuda"] == pytest.approx(errors["cpu"], rel=0.02)


def test_weights_that_make_up_for_changed_inputs_are_those_of_the_processor():
    weights = {}
    for device in ("cpu", "cuda"):
        model = tiny_model("llama")
        inputs = {"calibration_inputs": "true_sequential", "dense_target": 0.5}
        prune(model, None, WINDOWS, "60%", "magnitude", "none", **inputs, device=device, progress=False)
        assert {str(each.device) for each in model.parameters()} == {"cpu"}
        weights[device] = torch.cat([each.detach().flatten() for each in model.parameters()])
    assert (weights["cuda"] - weights["cpu"]).norm() < 0.01 * weights["cpu"].norm()


def test_perplexity_is_that_of_the_processor():
    expected = perplexity(tiny_model("llama"), WINDOWS, 2).value
    assert perplexity(tiny_model("llama").to("cuda"), WINDOWS, 2).value == pytest.approx(expected, rel=1e-3)


@pytest.mark.skipif(not has_sparse_units(), reason="no sparse units")
def test_sparse_units_take_two_of_four_and_nothing_denser():
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
    pruned = weight * select(weight.abs(), NOfM(keep=2, group=4))
    assert unconvertible(pruned.to("cuda", torch.bfloat16)) is None
    assert unconvertible(weight.to("cuda", torch.bfloat16)) is not None


@pytest.mark.skipif(not has_sparse_units(), reason="no sparse units")
def test_a_model_takes_sparse_weights_where_they_are_two_of_four():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 256), nn.Linear(256, 512)).to("cuda", torch.bfloat16).requires_grad_(False)
    model[0].weight.mul_(select(model[0].weight.abs(), NOfM(keep=2, group=4)))
    inputs = torch.randn(64, 512, device="cuda", dtype=torch.bfloat16)
    dense = model(inputs)
    found = to_semi_structured(model)
    assert found.converted == ("0",)
    assert found.dense == {"1": "not 2:4"}
    assert (model(inputs) - dense).norm() < 1e-2 * dense.norm()


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_pruned_weights_stay_zero_in_training(family):
    model, masks = trainable(family, torch.float32)
    model.to("cuda")

    def loss(tokens):
        with torch.autocast("cuda", torch.bfloat16):
            return model(input_ids=tokens.cuda(), labels=tokens.cuda(), use_cache=False).loss

    with KeepMasks(masks).on(model):
        train(list(model.parameters()), loss, torch.optim.AdamW(model.parameters(), lr=RATE, fused=True))
    assert verify(model, masks, "2:4").intact


@pytest.mark.parametrize("waiting_bytes", [3 * 1024**2, 1024**3])
def test_inputs_that_are_read_beside_a_forward_keep_their_values_until_then(waiting_bytes, monkeypatch):
    monkeypatch.setattr(beside, "WAITING_BYTES", waiting_bytes)
    aside, total, slow = (
        SideStreamReader(torch.device("cuda")),
        torch.zeros(1024, device="cuda"),
        torch.rand(4096, 4096).cuda(),
    )

    def work(x):
        torch.mm(slow, slow)
        total.add_(x.sum(dim=0))

    for number in range(50):
        aside.read("layer", torch.full((256, 1024), float(number), device="cuda"), work)
        torch.full((256, 1024), torch.nan, device="cuda")
    aside.finish()
    assert (total == 256 * sum(range(50))).all()
