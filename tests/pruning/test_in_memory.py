"""Pruning a loaded model in place, against the drivers of the stages on the same model in a folder."""

import warnings
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from families import random_windows, save, tiny_model
from peft import LoraConfig
from pipeline_project import character_tokenizer
from runs import Bar

from prunelib import refiners, warmstarts
from prunelib.calibration.artifact import Calibration
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.shards import ShardCalibration, calibrate_in_shards
from prunelib.calibration.windows import draw_in_documents, draw_windows, tokenize
from prunelib.errors import ArtifactError, ModelError, PatternError, PruneError
from prunelib.masks.allocation import Atp, Dlp, Owl
from prunelib.masks.packed import read_masks, write_masks
from prunelib.masks.patterns import NOfM, PerLayer, PerRow
from prunelib.masks.pruned import merge_pruned
from prunelib.model.masked import apply_masks
from prunelib.model.structure import find_layers, load_model
from prunelib.model.weights import read_weight, weight_in
from prunelib.pruning import on_the_fly
from prunelib.pruning.chains import Chain
from prunelib.pruning.in_memory import prune
from prunelib.pruning.refined_blocks import FinishedBlocks
from prunelib.pruning.refined_layers import refine_layer
from prunelib.pruning.warmstart import warmstart_masks
from prunelib.pruning.whole_model import ModelRefinement
from prunelib.runtime.machine import machine

WINDOWS = random_windows(samples=6, length=12)
DRAWN_FROM = {"model": "abc"}
WANDA, SWAPS = warmstarts.wanda.Wanda(), refiners.sparseswaps.SparseSwaps()
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


def by_stages(tmp_path, model, pattern, settings, inputs="dense", held_out=0, share=0.0):
    """The masks and weights that the drivers of the stages make of a model's folder."""
    folder = save(model, tmp_path / "model")
    index = find_layers(load_model(folder, str(model.dtype).removeprefix("torch."), "cpu"), folder)
    samples, in_pairs = len(WINDOWS) - held_out, {"length": 12, "batch": 2, "held_out_samples": held_out}
    calibration = CalibrationSettings(text="ours", samples=samples, **in_pairs, inputs=inputs, dense_target=share)
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
    reconstructed = FinishedBlocks(tmp_path / "reconstructed", known.provenance)
    blocks = refinement.reconstruct(blocks, reconstructed, machine(), Bar())
    return folder, index, merge_pruned([block.pruned for block in blocks]), [r for b in blocks for r in b.records]


def check_equal(
    tmp_path, family, pattern, settings, held_out=0, inputs="dense", dtype=torch.float32, share=0.0, **arguments
):
    model = tiny_model(family, dtype=dtype)
    folder, index, pruned, records = by_stages(tmp_path, model, pattern, settings, inputs, held_out, share)
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
        dense_target=share,
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


@pytest.mark.parametrize("family", FAMILIES)
def test_dense_targets_are_those_of_the_stages(tmp_path, family):
    result = check_equal(tmp_path, family, ROW50, SWAPS, inputs="true_sequential", share=0.5)
    assert result.layers["updated"].tolist() == [layer.fused is None for layer in result.index.layers]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dense_targets_before_updated_weights_and_blocks(tmp_path, dtype):
    settings = Chain(chain=("sparseswaps", "refit_swaps", {"method": "block_reconstruction", "epochs": 2}))
    check_equal(tmp_path, "llama", NM24, settings, inputs="true_sequential", held_out=2, dtype=dtype, share=0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_reconstructed_blocks_are_those_of_the_stages(tmp_path, family):
    settings = Chain(chain=("sparseswaps", {"method": "block_reconstruction", "epochs": 2}))
    result = check_equal(tmp_path, family, ROW50, settings)
    assert all(block.error_after < block.error_before for block in result.reconstructions)


@pytest.mark.parametrize("inputs", ["dense", "sequential"])
@pytest.mark.parametrize(
    ("pattern", "settings"),
    [
        (NM24, Chain(chain=("sparseswaps", "refit_swaps"))),
        (PerLayer(sparsity=0.6), refiners.none.NoRefinement()),
        (ROW50, refiners.sparsefw.SparseFW(iterations=20)),
    ],
    ids=["chain", "per layer", "Frank-Wolfe"],
)
def test_other_patterns_and_refiners_too(tmp_path, pattern, settings, inputs):
    check_equal(tmp_path, "llama", pattern, settings, inputs=inputs)


@pytest.mark.parametrize("allocation", [Owl(outlier=2.0), Dlp(), Atp(slope=0.1)], ids=lambda each: each.method)
@pytest.mark.parametrize("family", ["mixtral", "llama"])
def test_an_allocation_is_that_of_the_stages(tmp_path, allocation, family):
    result = check_equal(tmp_path, family, PerRow(sparsity=0.6, allocation=allocation), SWAPS)
    kept = result.layers["kept"] / (result.layers["rows"] * result.layers["inputs"])
    assert kept.max() - kept.min() > 0.05


@pytest.mark.parametrize("inputs", ["sequential", "true_sequential"])
def test_a_progression_is_that_of_the_stages_on_inputs_of_the_pruned_model(tmp_path, inputs):
    check_equal(tmp_path, "llama", PerLayer(sparsity=0.6, allocation=Atp(slope=0.1)), SWAPS, inputs=inputs)


def test_windows_are_held_out(tmp_path):
    settings = refiners.sparseswaps.SparseSwaps(early_stopping_interval=1)
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


class Stop(BaseException):
    """Ctrl-C, at a place of the test's choice."""


def test_what_stops_it_says_which_blocks_are_pruned(monkeypatch):
    model, dense = tiny_model("llama"), tiny_model("llama").state_dict()
    seen = []

    def refine(*arguments, **keywords):
        seen.append(arguments)
        if len(seen) == 10:  # in the second block of seven layers
            raise Stop
        return refine_layer(*arguments, **keywords)

    monkeypatch.setattr(on_the_fly, "refine_layer", refine)
    model.train()
    with pytest.raises(Stop) as stopped:
        prune(model, None, WINDOWS, "50%", progress=False)
    assert "1 of 2 blocks" in stopped.value.__notes__[0]
    assert model.training
    for name, tensor in model.state_dict().items():
        pruned = name.startswith("model.layers.0.") and "_proj" in name
        assert torch.equal(tensor, dense[name]) != pruned


def test_the_result_is_saved_and_applied_to_another_model(tmp_path):
    result = prune(tiny_model("mixtral"), None, WINDOWS, "2:4", progress=False)
    result.save(tmp_path / "result")
    masks = read_masks(
        tmp_path / "result" / "masks.safetensors", {"pattern": {"kind": "n_of_m", "keep": 2, "group": 4}}
    )
    assert all(torch.equal(masks[name], mask) for name, mask in result.masks.items())
    other = tiny_model("mixtral", dtype=torch.bfloat16)
    dense = {layer.name: weight_in(other, layer).clone() for layer in result.index.layers}
    result.apply(other)
    for layer in result.index.layers:
        assert torch.equal(weight_in(other, layer), dense[layer.name].masked_fill(~masks[layer.name], 0.0))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ArtifactError, match="mine"):
        result.save(tmp_path / "mine")


def test_masks_of_other_models_are_refused_before_anything_changes():
    model = tiny_model("llama")
    masks = {layer.name: torch.zeros(layer.rows, layer.inputs, dtype=torch.bool) for layer in find_layers(model).layers}
    first = next(iter(masks))
    for wrong in ({**masks, "other": masks[first]}, {**masks, first: masks[first][:1]}):
        with pytest.raises(PatternError):
            apply_masks(model, wrong)
    assert torch.equal(model.get_parameter(f"{first}.weight"), tiny_model("llama").get_parameter(f"{first}.weight"))


def test_masks_of_old_files_lack_the_prefix():
    model = tiny_model("gpt2")
    layer = find_layers(model).layers[0]
    assert layer.name.startswith("transformer.")
    apply_masks(
        model, {layer.name.removeprefix("transformer."): torch.zeros(layer.rows, layer.inputs, dtype=torch.bool)}
    )
    assert not layer.weight(model).any()


def test_the_table_has_a_row_per_layer_and_a_line_per_kind():
    result = prune(tiny_model("llama"), None, WINDOWS, "50%", progress=False)
    layers = result.layers
    assert list(layers["name"]) == list(result.masks)
    assert (layers["error_after"] <= layers["error_before"]).all()
    assert (layers["kept"] == layers["rows"] * layers["inputs"] // 2).all()
    assert (layers["seconds"] > 0).all()
    assert layers["bound"].isna().all()
    kinds = [line.split()[0] for line in repr(result).splitlines()[3:]]
    assert kinds == [*dict.fromkeys(layers["kind"]), "all"]


LETTERS = ["abcdefghij klmnop" * 10, "qrstu vwxyz." * 8]


@pytest.mark.parametrize("draw", ["stream", "documents"])
@pytest.mark.parametrize("form", [list, tuple, "dataset"])
def test_texts_are_strings_or_a_data_set(form, draw):
    tokenizer = character_tokenizer()
    texts = Dataset.from_dict({"id": [1, 2], "text": LETTERS}) if form == "dataset" else form(LETTERS)
    found = prune(tiny_model("llama"), tokenizer, texts, samples=3, length=9, seed=5, draw=draw, progress=False)
    if draw == "stream":
        windows = draw_windows(tokenize(LETTERS, tokenizer), 3, 9, 5)
    else:
        windows = draw_in_documents(LETTERS, tokenizer, 3, 9, 5)
    expected = prune(tiny_model("llama"), None, windows.long(), progress=False)
    assert found.provenance["tokens"] == expected.provenance["tokens"]
    assert all(torch.equal(mask, found.masks[name]) for name, mask in expected.masks.items())


REFUSED = {
    "pattern": ({"pattern": "5:4"}, ["5:4"]),
    "no pattern": ({"pattern": 0.5}, ["pattern", "0.5"]),
    "a pattern that does not fit": ({"pattern": "2:5"}, ["2:5", "layers.0"]),
    "warm start": ({"warmstart": "wandaa"}, ["warmstart", "did you mean wanda"]),
    "refiner": ({"refiner": "swaps"}, ["refiner", "did you mean sparseswaps"]),
    "settings": ({"refiner": {"method": "sparsefw", "iterations": 0}}, ["iterations", "0"]),
    "order of a chain": ({"refiner": ["refit_swaps", "sparseswaps"]}, ["sparseswaps after refit_swaps"]),
    "samples": ({"samples": 0}, ["samples", "0"]),
    "held out": ({"refiner": SWAPS.model_copy(update={"early_stopping_interval": 1})}, ["held_out_samples"]),
    "too many held out": ({"held_out_samples": 6}, ["held_out_samples", "6"]),
    "inputs": ({"calibration_inputs": "pruned"}, ["calibration_inputs", "pruned"]),
    "target": ({"calibration_inputs": "true_sequential", "dense_target": 2}, ["dense_target", "2"]),
    "target of dense inputs": ({"dense_target": 0.5}, ["dense_target", "0.5", "true_sequential"]),
    "target of inputs": ({"calibration_inputs": "sequential", "dense_target": 0.5}, ["dense_target", "0.5"]),
    "OWL": ({"pattern": "60%", "allocation": Owl(), "calibration_inputs": "sequential"}, ["OWL", "dense"]),
    "DLP": ({"pattern": "60%", "allocation": Dlp(), "calibration_inputs": "true_sequential"}, ["DLP", "dense"]),
    "allocation": ({"allocation": Owl()}, ["allocation", "2:4"]),
    "spread": ({"pattern": "80%", "allocation": Dlp(spread=0.2)}, ["allocation.spread", "0.2"]),
    "slope": ({"pattern": "60% per layer", "allocation": Atp(slope=0.9)}, ["allocation.slope", "0.9"]),
    "no allocation": ({"pattern": "60%", "allocation": "owl"}, ["allocation", "owl"]),
    "device": ({"device": "cuda:99"}, ["device", "cuda:99"]),
    "tokens": ({"texts": WINDOWS + 60}, ["texts", "64 rows"]),
    "wide tokens": ({"texts": WINDOWS.long() + 2**32}, ["texts", "64 rows"]),
    "seed": ({"seed": -1}, ["seed", "-1"]),
    "negative": ({"texts": WINDOWS - 64}, ["texts", "-"]),
    "shape": ({"texts": WINDOWS[0]}, ["texts", "(12,)"]),
    "floats": ({"texts": WINDOWS.float()}, ["texts", "float32"]),
    "too long": ({"texts": random_windows(samples=2, length=65)}, ["length", "65", "64"]),
    "no tokenizer": ({"texts": ["text"]}, ["tokenizer"]),
    "no text": ({"texts": [], "tokenizer": character_tokenizer()}, ["texts"]),
    "no strings": ({"texts": [1], "tokenizer": character_tokenizer()}, ["texts", "int"]),
    "no column": ({"texts": Dataset.from_dict({"a": ["b"]}), "tokenizer": character_tokenizer()}, ["texts", "'a'"]),
    "too little text": ({"texts": ["ab"], "tokenizer": character_tokenizer()}, ["samples"]),
    "too little to hold out": (
        {"texts": ["ab"], "tokenizer": character_tokenizer(), "samples": 4, "held_out_samples": 3},
        ["samples + held_out_samples = 4 + 3"],
    ),
    "nothing": ({"texts": None, "tokenizer": character_tokenizer()}, ["texts", "NoneType"]),
    "a path": ({"texts": Path("text.txt"), "tokenizer": character_tokenizer()}, ["texts", "Path"]),
    "no refiner": ({"refiner": []}, ["refiner = []", "None"]),
    "a number": ({"refiner": 5}, ["refiner = 5"]),
    "chain of one": ({"refiner": {"chain": ["sparseswaps"]}}, ["chain", "2"]),
    "sparsity": ({"pattern": "0.5%"}, ["0.5%", "higher sparsity"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_argument_is_refused_in_one_line_and_changes_nothing(case):
    model, dense = tiny_model("llama"), tiny_model("llama").state_dict()
    arguments, named = REFUSED[case]
    with pytest.raises(PruneError) as refused:
        prune(model, **{"tokenizer": None, "texts": WINDOWS, "length": 12, "progress": False, **arguments})
    line = str(refused.value)
    assert "\n" not in line
    assert all(fact in line for fact in named), line
    assert all(torch.equal(tensor, dense[name]) for name, tensor in model.state_dict().items())


def test_settings_of_a_result_are_those_of_the_next_one():
    chain = ["sparseswaps", "refit_swaps"]
    found = prune(tiny_model("llama"), None, WINDOWS, "2:4", refiner=chain, progress=False)
    again = prune(tiny_model("llama"), None, WINDOWS, "2:4", refiner=[found.provenance["refiner"]], progress=False)
    assert again.provenance == found.provenance
    assert all(torch.equal(mask, again.masks[name]) for name, mask in found.masks.items())


def test_a_sparsity_too_low_for_some_layers_is_a_warning():
    model = tiny_model("llama")
    widths = {module.in_features for module in model.model.layers.modules() if isinstance(module, torch.nn.Linear)}
    sparsity = 1.1 / max(widths)
    with pytest.warns(UserWarning, match=r"prunes no weight of \d+ of \d+ layers, first model\.layers\.0"):
        prune(model, None, WINDOWS, PerRow(sparsity=sparsity), refiner=None, progress=False)


def test_the_folder_may_be_text(tmp_path):
    folder = save(tiny_model("llama"), tmp_path / "model")
    found = prune(load_model(folder, "float32", "cpu"), None, WINDOWS, refiner=None, folder=str(folder), progress=False)
    assert found.index == find_layers(load_model(folder, "float32", "cpu"), folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("refiner", ["sparseswaps", "sparsefw", ["sparseswaps", "refit_swaps"]])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_torch_s_default_dtype_changes_nothing(family, refiner, dtype):
    arguments = {"refiner": refiner, "min_tokens": 10**6, "progress": False}  # experts have identity Gram matrices
    expected = prune(tiny_model(family), None, WINDOWS, **arguments)
    model = tiny_model(family)
    torch.set_default_dtype(dtype)
    try:
        found = prune(model, None, WINDOWS, **arguments)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(mask, found.masks[name]) for name, mask in expected.masks.items())
    assert found.records == expected.records


def test_windows_may_have_any_integer_dtype():
    found, expected = (
        prune(tiny_model("llama"), None, WINDOWS.to(dtype), refiner=None, progress=False)
        for dtype in (torch.uint16, torch.int32)
    )
    assert found.provenance == expected.provenance


def test_what_is_no_transformers_model_on_one_device_is_refused():
    with pytest.raises(ModelError, match="Linear"):
        prune(torch.nn.Linear(2, 2), None, WINDOWS)
    model = tiny_model("llama")
    model.model.layers[1].to("meta")
    with pytest.raises(ModelError, match="cpu, meta"):
        prune(model, None, WINDOWS)
    with pytest.raises(ModelError, match="allow_uncovered"):
        prune(tiny_model("mamba"), None, WINDOWS)


def test_adapters_are_refused():
    model = tiny_model("llama")
    model.add_adapter(LoraConfig(target_modules=["q_proj", "v_proj"]))
    with pytest.raises(ModelError, match=r"4 layers have adapters, first model\.layers\.0\.self_attn\.q_proj; merge"):
        prune(model, None, WINDOWS)


def test_weights_that_cannot_be_changed_are_refused():
    model = tiny_model("llama")
    with torch.inference_mode(), pytest.raises(ModelError, match="inference_mode"):
        prune(model, None, WINDOWS)
    with torch.inference_mode():
        model = tiny_model("llama")
    with pytest.raises(ModelError, match="inference_mode"):
        prune(model, None, WINDOWS)
