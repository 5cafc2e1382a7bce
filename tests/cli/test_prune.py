"""A model in a folder, pruned by one command."""

import json
from pathlib import Path

import pytest
import torch
import typer
from commands import prunelib
from families import save, tiny_model
from pipeline_project import LETTERS, character_tokenizer
from transformers import AutoModelForCausalLM

from prunelib import read_masks
from prunelib.cli.app import app
from prunelib.masks.allocation import Atp
from prunelib.model.structure import find_layers, load_model, load_tokenizer
from prunelib.model.weights import read_weight
from prunelib.pruning.in_memory import prune
from prunelib.sources.provenance import computed_identity

FEW = ("--samples", 4, "--length", 12)


@pytest.fixture
def model(tmp_path):
    folder = save(tiny_model("llama", dtype=torch.bfloat16), tmp_path / "model")
    character_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(LETTERS[i * i % len(LETTERS)] for i in range(200)))
    return path


def test_the_pruned_model_is_in_the_folder(model, text, tmp_path):
    out = tmp_path / "pruned"
    chain = ("--refiner", "sparseswaps", "--refiner", "{method: refit_swaps, damping: 0.02}")
    done = prunelib("prune", model, "--text", text, "--pattern", "2:4", *FEW, *chain, "--out", out)
    assert done.exit_code == 0, done.stderr
    loaded = load_model(model, "bfloat16", "cpu")
    documents = [text.read_text()]
    refiner = ["sparseswaps", {"method": "refit_swaps", "damping": 0.02}]
    expected = prune(loaded, load_tokenizer(model), documents, "2:4", "wanda", refiner, samples=4, length=12)
    masks = read_masks(out / "masks.safetensors", {"model": computed_identity(model)})
    assert masks.keys() == expected.masks.keys()
    pruned = AutoModelForCausalLM.from_pretrained(out)
    for layer in expected.index.layers:
        assert torch.equal(masks[layer.name], expected.masks[layer.name])
        assert torch.equal(layer.weight(pruned), layer.weight(loaded))
        assert torch.equal(read_weight(out, layer) != 0, masks[layer.name])
    made_from = json.loads((out / "provenance.json").read_text())
    assert made_from["pattern"] == {"kind": "n_of_m", "keep": 2, "group": 4}
    assert made_from["tokens"] == expected.provenance["tokens"]


@pytest.mark.parametrize("given", ["atp", "{method: atp, slope: 0.01}"])
def test_sparsities_that_differ_by_block(model, text, tmp_path, given):
    out = tmp_path / "pruned"
    done = prunelib("prune", model, "--text", text, "--pattern", "60%", "--allocation", given, *FEW, "--out", out)
    assert done.exit_code == 0, done.stderr
    loaded, tokenizer = load_model(model, "bfloat16", "cpu"), load_tokenizer(model)
    expected = prune(loaded, tokenizer, [text.read_text()], "60%", allocation=Atp(), samples=4, length=12)
    masks = read_masks(out / "masks.safetensors")
    assert all(torch.equal(masks[name], mask) for name, mask in expected.masks.items())


def test_masks_alone_can_be_applied_again(model, text, tmp_path):
    assert prunelib("prune", model, "--text", text, *FEW, "--out", tmp_path / "one").exit_code == 0
    done = prunelib("apply", "--model", model, "--masks", tmp_path / "one", "--to", tmp_path / "other")
    assert done.exit_code == 0, done.stderr
    for layer in find_layers(load_model(model, "bfloat16", "cpu"), model).layers:
        assert torch.equal(read_weight(tmp_path / "one", layer), read_weight(tmp_path / "other", layer))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--pattern", "5:4"), ["5:4"]),
        (("--warmstart", "wandaa"), ["warmstart", "wandaa", "did you mean wanda"]),
        (("--refiner", "{method: sparsefw, iterations: -1}"), ["iterations", "-1"]),
        (("--refiner", "{method: sparsefw"), ["refiner", "YAML"]),
        (("--refiner", "refit_swaps", "--refiner", "sparseswaps"), ["sparseswaps after refit_swaps"]),
        (("--samples", 100), ["samples", "100"]),
        (("--length", 1), ["length", "1"]),
        (("--length", 100), ["length", "100", "64"]),
        (("--device", "tpu"), ["device", "tpu"]),
        (("--draw", "random"), ["draw", "random"]),
        (("--allocation", "owl"), ["allocation", "2:4"]),
        (("--pattern", "60%", "--allocation", "owll"), ["allocation", "owll"]),
        (("--text", "nothing.txt"), ["nothing.txt"]),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(model, text, tmp_path, monkeypatch, words, named):
    monkeypatch.setenv("COLUMNS", "200")
    done = prunelib("prune", model, "--text", text, *FEW, *words, "--out", tmp_path / "pruned")
    assert done.exit_code == 2
    assert all(fact in done.stderr for fact in named)
    assert not (tmp_path / "pruned").exists()


def test_a_folder_with_files_is_refused_first(model, text, tmp_path):
    (tmp_path / "pruned").mkdir()
    (tmp_path / "pruned" / "mine.txt").touch()
    done = prunelib("prune", model, "--text", text, "--out", tmp_path / "pruned")
    assert done.exit_code == 2
    assert f"{tmp_path / 'pruned'}: exists" in done.stderr


def test_a_disk_that_is_too_full_is_refused_before_any_work(model, text, tmp_path, monkeypatch):
    size = (model / "model.safetensors").stat().st_size
    monkeypatch.setattr("prunelib.planning.capacity.free_disk", lambda path: size)
    monkeypatch.setattr("prunelib.cli.prune.load_model", None)
    done = prunelib("prune", model, "--text", text, *FEW, "--out", tmp_path / "pruned")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: the pruned model: {tmp_path / 'pruned'} needs ")
    assert done.stderr.count("\n") == 1


def test_neither_a_folder_nor_on_the_hub(text, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _offline)
    done = prunelib("prune", "owner/name", "--text", text, "--out", tmp_path / "pruned")
    assert done.exit_code == 2
    assert "owner/name" in done.stderr
    assert done.stderr.count("\n") == 1


def _offline(*_, **__):
    raise ConnectionError("no route to the hub")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--samples", 0), ["samples", "0"]),
        (("--seed", -1), ["seed", "-1"]),
        (("--seed", 2**70), ["seed", str(2**70)]),
        (("--device", "tpu"), ["device", "tpu"]),
        (("--device", "cpu:"), ["device", "cpu:"]),
        (("--pattern", "60%", "--refiner", "block_moves"), ["block_moves", "60%"]),
        (("--refiner", "{method: sparseswaps, early_stopping_interval: 5}"), ["held_out_samples"]),
        (("--refiner", "{method: sparseswaps, max_swaps: 2024-13-45}"), ["refiner", "2024-13-45"]),
    ],
)
def test_a_wrong_option_is_refused_before_the_model_is_fetched(text, tmp_path, monkeypatch, words, named):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _offline)
    done = prunelib("prune", "owner/name", "--text", text, *FEW, *words, "--out", tmp_path / "pruned")
    assert done.exit_code == 2
    assert all(fact in done.stderr for fact in named)
    assert "owner/name" not in done.stderr


def test_too_little_text_is_said_in_the_words_of_the_command(model, text, tmp_path):
    done = prunelib("prune", model, "--text", text, *FEW, "--samples", 100, "--out", tmp_path / "pruned")
    assert "calibration." not in done.stderr


def test_a_commit_in_the_hubs_cache_needs_no_hub(model, text, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _offline)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **given: asked.append(given) or model)
    options = ("--revision", "a" * 40, "--text", text, *FEW, "--refiner", "none")
    done = prunelib("prune", "owner/name", *options, "--out", tmp_path / "pruned")
    assert done.exit_code == 0, done.stderr
    assert asked[0]["revision"] == "a" * 40


def test_a_folder_has_no_revisions(model, text, tmp_path):
    done = prunelib("prune", model, "--revision", "main", "--text", text, *FEW, "--out", tmp_path / "pruned")
    assert done.exit_code == 2
    assert "revision = main" in done.stderr


def test_a_link_to_an_empty_folder_is_followed(model, text, tmp_path):
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    (tmp_path / "real").mkdir()
    done = prunelib("prune", model, "--text", text, *FEW, "--refiner", "none", "--out", tmp_path / "link")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "config.json").is_file()


def test_every_option_reaches_the_library(monkeypatch):
    given = {}
    monkeypatch.setattr("prunelib.cli.prune.prune_folder", lambda *each, **named: given.update(named, arguments=each))
    words = {
        "--pattern": "4:8",
        "--allocation": "owl",
        "--warmstart": "ria",
        "--refiner": "alps",
        "--revision": "abc",
        "--rows": "lines",
        "--dtype": "float16",
        "--samples": 3,
        "--length": 9,
        "--batch": 2,
        "--held-out-samples": 1,
        "--seed": 5,
        "--draw": "documents",
        "--inputs": "sequential",
        "--dense-target": 0.5,
        "--device": "cpu",
    }
    flags = {"--bos-per-window", "--allow-uncovered"}
    done = prunelib(
        "prune", "M", "--text", "T", "--out", "O", *(word for pair in words.items() for word in pair), *flags
    )
    assert done.exit_code == 0, done.stderr
    options = {word.removeprefix("--").replace("-", "_"): value for word, value in words.items()}
    assert given == {
        "arguments": ("M", ["T"], Path("O")),
        "refiners": [options.pop("refiner")],
        "calibration_inputs": options.pop("inputs"),
        "bos_per_window": True,
        "allow_uncovered": True,
        **options,
    }
    (command,) = (typer.main.get_command(app).commands[name] for name in ("prune",))
    known = {word for parameter in command.params for word in parameter.opts if word.startswith("--")}
    assert known - {"--text", "--out", "--help"} == {*words, *flags}


def test_a_missing_folder_with_a_commit_is_one_line(text, tmp_path):
    done = prunelib("prune", tmp_path / "none", "--text", text, "--revision", "0" * 40, "--out", tmp_path / "pruned")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'none'}: no such folder")
    assert done.stderr.count("\n") == 1


def test_a_missing_shard_is_named(text, tmp_path):
    folder = save(tiny_model("llama"), tmp_path / "sharded", max_shard_size="20KB")
    character_tokenizer().save_pretrained(folder)
    missing = sorted(folder.glob("*.safetensors"))[1]
    missing.unlink()
    done = prunelib("prune", folder, "--text", text, *FEW, "--out", tmp_path / "pruned")
    assert done.exit_code == 2
    assert f"{missing}: no such file, though the model's index names it" in done.stderr
