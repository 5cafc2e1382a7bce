"""Pruning a loaded model in place, against the drivers of the stages on the same model in a folder."""

import warnings

import pytest
import torch
from families import random_windows, save, tiny_model
from runs import Bar

from prunelib import refiners, warmstarts
from prunelib.calibration.artifact import Calibration
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.shards import ShardCalibration, calibrate_in_shards
from prunelib.masks.allocation import Owl
from prunelib.masks.packed import write_masks
from prunelib.masks.patterns import NOfM, PerLayer, PerRow
from prunelib.masks.pruned import merge_pruned
from prunelib.model.structure import find_layers, load_model
from prunelib.model.weights import read_weight, weight_in
from prunelib.pruning.chains import Chain
from prunelib.pruning.in_memory import prune
from prunelib.pruning.refinement import FinishedBlocks
from prunelib.pruning.warmstart import warmstart_masks
from prunelib.pruning.whole_model import ModelRefinement
from prunelib.runtime.machine import machine

WINDOWS = random_windows(samples=6, length=12)
DRAWN_FROM = {"model": "abc"}
WANDA, SWAPS = warmstarts.wanda.Settings(), refiners.sparseswaps.Settings()
ROW50, NM24 = PerRow(sparsity=0.5), NOfM(keep=2, group=4)
# a family of each shape: dense, stored transposed, experts, blocks that return tuples or share keys, names of files,
# recurrences
FAMILIES = ["llama", "gpt2", "mixtral", "bloom", "gemma4_text", "gemma3", "deepseek_v3", "mamba"]
PARTIAL = {"mamba"}


@pytest.fixture(autouse=True)
def few_tokens():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*inputs of experts received fewer")
        yield


def by_stages(tmp_path, model, pattern, settings, inputs="dense", held_out=0):
    """The masks and weights that the drivers of the stages make of a model's folder."""
    folder = save(model, tmp_path / "model")
    index = find_layers(load_model(folder, str(model.dtype).removeprefix("torch."), "cpu"), folder)
    calibration = CalibrationSettings(
        text="ours", samples=len(WINDOWS) - held_out, length=12, batch=2, held_out_samples=held_out, inputs=inputs
    )
    (tmp_path / "scratch").mkdir()
    dtype = str(model.dtype).removeprefix("torch.")
    shards = ShardCalibration(folder, dtype, index, calibration, tmp_path / "scratch")
    parts = WINDOWS[: calibration.samples], WINDOWS[calibration.samples :]
    drawn_from = {**DRAWN_FROM, "settings": calibration.model_dump()}
    known = Calibration.open(calibrate_in_shards(shards, parts, drawn_from, Bar()), "abc")
    start = tmp_path / "start.safetensors"
    masks = warmstart_masks(folder, known, pattern, WANDA, torch.device("cpu"))
    write_masks(start, masks, known.provenance)
    refinement = ModelRefinement(folder, dtype, known, pattern, WANDA, settings, start, known.provenance)
    blocks = refinement.run(FinishedBlocks(tmp_path / "finished", known.provenance), machine(), Bar())
    return folder, index, merge_pruned([block.pruned for block in blocks]), [r for b in blocks for r in b.records]


def check_equal(tmp_path, family, pattern, settings, held_out=0, inputs="dense", dtype=torch.float32, **arguments):
    model = tiny_model(family, dtype=dtype)
    folder, index, pruned, records = by_stages(tmp_path, model, pattern, settings, inputs, held_out)
    model = load_model(folder, str(dtype).removeprefix("torch."), "cpu")
    chain = settings.chain if isinstance(settings, Chain) else settings
    result = prune(
        model,
        None,
        WINDOWS,
        pattern,
        WANDA,
        chain,
        batch=2,
        held_out_samples=held_out,
        calibration_inputs=inputs,
        allow_uncovered=family in PARTIAL,
        progress=False,
        **arguments,
    )
    assert result.masks.keys() == pruned.masks.keys()
    for layer in index.layers:
        assert torch.equal(result.masks[layer.name], pruned.masks[layer.name])
        weight = pruned.weights[layer.name] if layer.name in pruned.weights else read_weight(folder, layer)
        expected = torch.where(pruned.masks[layer.name], weight, 0.0)
        assert torch.equal(weight_in(model, layer), expected.to(dtype))
    assert result.records == records
    return result


@pytest.mark.parametrize("inputs", ["dense", "sequential", "true_sequential"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_are_those_of_the_stages(tmp_path, family, inputs):
    check_equal(tmp_path, family, ROW50, SWAPS, inputs=inputs)


@pytest.mark.parametrize("inputs", ["dense", "sequential"])
@pytest.mark.parametrize(
    ("pattern", "settings"),
    [
        (NM24, Chain(chain=("sparseswaps", "refit_swaps"))),
        (PerLayer(sparsity=0.6), refiners.none.Settings()),
        (ROW50, refiners.sparsefw.Settings(iterations=20)),
    ],
    ids=["chain", "per layer", "Frank-Wolfe"],
)
def test_other_patterns_and_refiners_too(tmp_path, pattern, settings, inputs):
    check_equal(tmp_path, "llama", pattern, settings, inputs=inputs)


def test_an_allocation_by_outliers_is_that_of_the_stages(tmp_path):
    check_equal(tmp_path, "mixtral", PerRow(sparsity=0.6, allocation=Owl(outlier=2.0)), SWAPS)


def test_windows_are_held_out(tmp_path):
    settings = refiners.sparseswaps.Settings(early_stopping_interval=1)
    check_equal(tmp_path, "llama", ROW50, settings, held_out=2)


def test_a_model_in_bfloat16_keeps_its_dtype(tmp_path):
    check_equal(tmp_path, "llama", NM24, SWAPS, dtype=torch.bfloat16)


def test_nothing_but_the_layers_changes():
    model, before = tiny_model("mixtral"), tiny_model("mixtral").state_dict()
    model.train()
    model.model.layers[0].eval()
    model.set_experts_implementation("grouped_mm")
    result = prune(model, None, WINDOWS, "50%", progress=False)
    assert model.training
    assert not model.model.layers[0].training
    assert model.config._experts_implementation == "grouped_mm"
    parameters = {layer.parameter for layer in result.index.layers}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != (name in parameters)
