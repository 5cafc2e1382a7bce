"""Masks put on a dense model by one command."""

import shutil

import pytest
import torch
from commands import prunelib
from families import random_windows, save, tiny_model
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from prunelib.errors import ArtifactError
from prunelib.masks.patterns import NOfM
from prunelib.masks.pruned import Pruned, write_pruned
from prunelib.masks.selection import select
from prunelib.model.structure import find_layers, load_model
from prunelib.model.weights import read_weight
from prunelib.pruning.in_memory import prune
from prunelib.sources.provenance import computed_identity, model_identity, seal


@pytest.fixture
def folders(tmp_path):
    """A dense model, and the masks of a cell refined from it."""
    model = tiny_model("llama", dtype=torch.bfloat16)
    folder = save(model, tmp_path / "dense")
    layers = find_layers(model, folder).layers
    masks = {layer.name: select(read_weight(folder, layer).abs(), NOfM(keep=2, group=4)) for layer in layers}
    made_from = {"model": computed_identity(folder), "tokens": "t", "calibration": {}}
    methods = {"pattern": {"kind": "n_of_m"}, "warmstart": {"method": "wanda"}, "refiner": {"method": "none"}}
    write_pruned(tmp_path / "cell", Pruned(masks, {}), {**made_from, **methods})
    return folder, tmp_path / "cell", layers, masks


def apply(*words):
    done = prunelib("apply", *words)
    assert done.exit_code == 0


def test_the_dense_model_is_pruned_by_the_masks(folders, tmp_path):
    folder, cell, layers, masks = folders
    target = tmp_path / "pruned"
    apply("--model", folder, "--masks", cell, "--to", target)
    for layer in layers:
        expected = read_weight(folder, layer).masked_fill(~masks[layer.name], 0)
        assert torch.equal(read_weight(target, layer), expected)
    apply("--model", folder, "--masks", target, "--to", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (target / "model.safetensors").read_bytes()


def test_masks_of_a_model_in_memory_are_applied_to_its_folder(folders, tmp_path):
    folder, _, layers, _ = folders
    result = prune(tiny_model("llama", dtype=torch.bfloat16), None, random_windows(4, 8), "2:4", progress=False)
    result.save(tmp_path / "result")
    apply("--model", folder, "--masks", tmp_path / "result", "--to", tmp_path / "pruned")
    for layer in layers:
        expected = read_weight(folder, layer).masked_fill(~result.masks[layer.name], 0)
        assert torch.equal(read_weight(tmp_path / "pruned", layer), expected)


def test_masks_of_another_model_are_refused_in_one_line(folders, tmp_path):
    other = save(tiny_model("llama"), tmp_path / "other")
    done = prunelib("apply", "--model", other, "--masks", folders[1], "--to", tmp_path / "pruned")
    assert done.exit_code == 2
    error = done.stderr
    assert "cell/masks.safetensors: its model is" in error
    assert error.count("\n") == 1


def test_a_folder_that_is_not_there_is_not_called_another_model(folders, tmp_path):
    done = prunelib("apply", "--model", tmp_path / "nowhere", "--masks", folders[1], "--to", tmp_path / "pruned")
    assert done.exit_code == 2
    assert f"{tmp_path}/nowhere: " in done.stderr
    assert "no such folder" in done.stderr
    assert "its model is" not in done.stderr


def test_masks_of_a_warm_start_are_refused_by_what_they_lack(folders, tmp_path):
    folder, cell, _, masks = folders
    made_from = {"model": computed_identity(folder), "tokens": "t", "calibration": {}, "pattern": {}, "warmstart": {}}
    write_pruned(cell, Pruned(masks, {}), made_from)
    done = prunelib("apply", "--model", folder, "--masks", cell, "--to", tmp_path / "pruned")
    assert done.exit_code == 2
    line = done.stderr
    assert "cell/masks.safetensors" in line
    assert "refiner" in line


@pytest.mark.parametrize("config", ["{", "[]", '{"model_type": "none"}', '{"model_type": "llama", "dtype": "int8"}'])
def test_a_config_that_says_nothing_usable_is_one_line(config, folders, tmp_path):
    folder, cell, _, masks = folders
    (folder / "config.json").write_text(config)
    methods = {name: {"method": name, "kind": name} for name in ("pattern", "warmstart", "refiner")}
    write_pruned(
        cell, Pruned(masks, {}), {"model": computed_identity(folder), "tokens": "t", "calibration": {}, **methods}
    )
    done = prunelib("apply", "--model", folder, "--masks", cell, "--to", tmp_path / "pruned")
    assert done.exit_code == 2
    assert "config.json" in done.stderr


def test_the_identity_of_a_folder_is_that_which_was_sealed(folders):
    before = computed_identity(folders[0])
    seal(folders[0], "model", {})
    assert model_identity(folders[0]) == computed_identity(folders[0]) == before


@pytest.mark.parametrize("shard_size", ["1GB", "50KB"])
@pytest.mark.parametrize("surplus", ["consolidated.safetensors", "model.fp16.safetensors", "masks.safetensors"])
def test_files_that_are_not_the_models_change_no_identity(surplus, shard_size, tmp_path):
    folder = save(tiny_model("llama"), tmp_path / "dense", shard_size)
    shards = {path.name for path in folder.glob("*.safetensors")}
    assert (len(shards) > 1) == (shard_size == "50KB")
    before = computed_identity(folder)
    shutil.copy(folder / min(shards), folder / surplus)
    seal(folder, "model", {})
    assert model_identity(folder) == computed_identity(folder) == before
    for name in (*shards, "config.json"):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        assert computed_identity(folder) != before
        path.unlink()
        with pytest.raises(ArtifactError, match=name):
            computed_identity(folder)
        path.write_bytes(content)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "elsewhere"}}', "{"])
def test_a_folder_whose_index_is_damaged_has_no_identity(index, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ArtifactError, match=r"model\.safetensors\.index\.json|elsewhere"):
        computed_identity(tmp_path)


def test_the_card_names_folder_and_licence_as_text(folders, tmp_path):
    folder = folders[0].rename(tmp_path / "_x_ <b> # `y`")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    apply("--model", folder, "--masks", folders[1], "--to", tmp_path / "pruned")
    card = ModelCard.load(tmp_path / "pruned" / "README.md")
    assert card.data.license == "mit"
    assert r"\_x\_ &lt;b> # \`y\`" in card.text


def test_masks_without_the_weights_that_their_refiner_updated_are_told_apart(folders, tmp_path):
    folder, cell, _, masks = folders
    made_from = {"model": computed_identity(folder), "tokens": "t", "calibration": {}, "pattern": {}, "warmstart": {}}
    for refiner in ({"method": "sparseswaps"}, {"method": "chain", "chain": ["sparseswaps", "refit_swaps"]}):
        write_pruned(cell, Pruned(masks, {}), {**made_from, "refiner": refiner})
        target = tmp_path / refiner["method"]
        done = prunelib("apply", "--model", folder, "--masks", cell / "masks.safetensors", "--to", target)
        assert done.exit_code == 0
        updated = refiner["method"] == "chain"
        assert ("updated weights" in done.stderr) == updated
        assert ("kept_weights" in (target / "provenance.json").read_text()) == updated
        assert ("kept_weights" in (target / "README.md").read_text()) == updated


def test_masks_without_the_weights_that_made_up_for_changed_inputs_are_told_apart(folders, tmp_path):
    folder, cell, _, masks = folders
    made_from = {"model": computed_identity(folder), "tokens": "t", "pattern": {}, "warmstart": {}}
    known = {**made_from, "calibration": {"dense_target": 0.5}, "refiner": {"method": "sparseswaps"}}
    write_pruned(cell, Pruned(masks, {}), known)
    done = prunelib("apply", "--model", folder, "--masks", cell / "masks.safetensors", "--to", tmp_path / "pruned")
    assert done.exit_code == 0
    assert "updated weights" in done.stderr


def test_masks_in_memory_have_the_names_of_a_model_without_the_prefix_of_its_files(tmp_path):
    folder = save(tiny_model("gpt2"), tmp_path / "dense")
    tensors = load_file(folder / "model.safetensors")
    without = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(without, folder / "model.safetensors", {"format": "pt"})
    model = load_model(folder, "float32", "cpu")
    prune(model, None, random_windows(4, 8), "2:4", progress=False).save(tmp_path / "masks")
    apply("--model", folder, "--masks", tmp_path / "masks", "--to", tmp_path / "pruned")
    assert len(find_layers(model, tmp_path / "pruned").layers) == 8  # of equal weights: others are refused
