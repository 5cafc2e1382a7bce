"""Names of matrices in files that differ from those in memory."""

import pytest
import torch
from families import RENAMED, save, tiny_model
from transformers import AutoModelForImageTextToText
from transformers.core_model_loading import Chunk, Concatenate, WeightConverter, WeightRenaming

from prunelib.errors import ModelError
from prunelib.model.layers import read_index, write_index
from prunelib.model.names import name_in_files, stored_names
from prunelib.model.structure import decoder_blocks, find_layers, load_model
from prunelib.model.weights import read_weight, tensor_files


@pytest.mark.parametrize("family", RENAMED)
def test_layers_have_the_names_of_the_files(family, tmp_path):
    folder = save(tiny_model(family), tmp_path)
    model = load_model(folder, "float32", "cpu")
    index = find_layers(model, folder)
    modules = [layer for layer in index.layers if layer.fused is None]
    assert any(layer.module for layer in modules)
    for layer in index.layers:
        assert torch.equal(read_weight(folder, layer), layer.weight(model))
    for layer in modules:
        assert f"{layer.name}.weight" == layer.tensor in tensor_files(folder)
        assert model.get_submodule(layer.module or layer.name).weight is model.get_parameter(layer.parameter)
        assert layer.gram in {other.name for other in index.readers(layer.block)}
    write_index(tmp_path / "layers.json", index, "sha")
    assert read_index(tmp_path / "layers.json", "sha") == index


def test_a_wrapper_with_a_larger_vision_tower_is_read_by_its_text_blocks(tmp_path):
    wrapper = AutoModelForImageTextToText.from_config(tiny_model("gemma3").config)
    folder = save(wrapper, tmp_path)
    model = load_model(folder, "float32", "cpu")
    name, blocks = decoder_blocks(model)
    assert "vision" not in name
    assert blocks is model.model.language_model.layers
    index = find_layers(model, folder)
    assert (index.blocks, index.coverage, len(index.layers)) == (2, 1.0, 14)
    assert all(layer.tensor.startswith("language_model.model.layers.") for layer in index.layers)


def test_lists_that_do_not_run_on_text_are_refused():
    model = tiny_model("llama")
    model.first, model.second, model.model.layers = (torch.nn.ModuleList([torch.nn.Linear(2, 2)] * 2) for _ in "abc")
    model.model.layers.forward = None
    model.forward = lambda **_: None
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: .*first, second"):
        decoder_blocks(model)


CHUNKED = WeightConverter(r"attn\.qkv", ["attn.q", "attn.k"], [Chunk(dim=0)])
JOINED = WeightConverter([r"mlp\.gate", r"mlp\.up"], "mlp.gate_up", [Concatenate(dim=0)])
RENAMED_PART = WeightRenaming(r"mlp\.down", "mlp.last")


def test_a_matrix_that_no_tensor_holds_alone_has_no_name():
    model = tiny_model("llama")
    model._weight_conversions = [CHUNKED, JOINED, RENAMED_PART]
    sizes = {"attn.q": 3, "attn.k": 3, "attn.v": 3, "mlp.gate_up": 4, "mlp.last": 5}
    parameters = {f"layers.0.{name}.weight": torch.zeros(rows, 7) for name, rows in sizes.items()}
    assert stored_names(model, parameters) == {
        "layers.0.attn.q.weight": None,
        "layers.0.attn.k.weight": None,
        "layers.0.attn.v.weight": "layers.0.attn.v.weight",
        "layers.0.mlp.gate_up.weight": None,
        "layers.0.mlp.last.weight": "layers.0.mlp.down.weight",
    }


def test_such_matrices_count_as_uncovered(tmp_path):
    folder = save(tiny_model("llama"), tmp_path)
    model = load_model(folder, "float32", "cpu")
    model._weight_conversions = [
        WeightConverter("self_attn.qk_proj", ["self_attn.q_proj", "self_attn.k_proj"], [Chunk(dim=0)])
    ]
    index = find_layers(model, folder)
    assert {dense.name.split(".")[4] for dense in index.uncovered} == {"q_proj", "k_proj"}
    assert {dense.reason for dense in index.uncovered} == {"its files hold it in another layout"}
    assert {layer.kind: layer.gram for layer in index.of_block(0)}["v_proj"] == "model.layers.0.self_attn.v_proj"


def test_a_name_that_the_files_have_not_is_refused(tmp_path):
    stored = {"h.0.attn.weight": tmp_path}
    assert name_in_files("transformer.h.0.attn.weight", "transformer", stored) == "h.0.attn.weight"
    with pytest.raises(ModelError, match=r"^transformer\.h\.1\.attn\.weight: "):
        name_in_files("transformer.h.1.attn.weight", "transformer", stored)
