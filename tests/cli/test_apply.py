"""Masks put on a dense model by one command."""

import pytest
import torch
from commands import prunelib
from families import save, tiny_model
from huggingface_hub import ModelCard

from prunelib.masks.patterns import NOfM, select
from prunelib.masks.pruned import Pruned, write_pruned
from prunelib.model.structure import find_layers
from prunelib.model.weights import read_weight
from prunelib.sources.provenance import computed_identity, model_identity, seal


@pytest.fixture
def folders(tmp_path):
    """A dense model, and the masks of a cell refined from it."""
    model = tiny_model("llama", dtype=torch.bfloat16)
    folder = save(model, tmp_path / "dense")
    layers = find_layers(model, folder).layers
    masks = {layer.name: select(read_weight(folder, layer).abs(), NOfM(keep=2, group=4)) for layer in layers}
    made_from = {"model": computed_identity(folder), "tokens": "t"}
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


def test_masks_of_another_model_are_refused_in_one_line(folders, tmp_path):
    other = save(tiny_model("llama"), tmp_path / "other")
    done = prunelib("apply", "--model", other, "--masks", folders[1], "--to", tmp_path / "pruned")
    assert done.exit_code == 2
    error = done.stderr
    assert "cell/masks.safetensors: its model is" in error
    assert error.count("\n") == 1


def test_the_identity_of_a_folder_is_that_which_was_sealed(folders):
    before = computed_identity(folders[0])
    seal(folders[0], "model", {})
    assert model_identity(folders[0]) == computed_identity(folders[0]) == before


def test_the_card_names_folder_and_licence_as_text(folders, tmp_path):
    folder = folders[0].rename(tmp_path / "_x_ <b> # `y`")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    apply("--model", folder, "--masks", folders[1], "--to", tmp_path / "pruned")
    card = ModelCard.load(tmp_path / "pruned" / "README.md")
    assert card.data.license == "mit"
    assert r"\_x\_ &lt;b> # \`y\`" in card.text
