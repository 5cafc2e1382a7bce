"""config.json and the weight files of a folder: which differences are refused, and before what."""

import json
import re

import pytest
import torch
from families import ALL, save, tiny_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from prunelib.errors import ModelError
from prunelib.model.fit import check_size
from prunelib.model.structure import load_model
from prunelib.model.weights import stored_tensors


def edit_config(folder, **changes):
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def add_tensors(folder, tensors):
    file = folder / "model.safetensors"
    save_file({**load_file(file), **tensors}, file, {"format": "pt"})


@pytest.fixture
def llama(tmp_path):
    return save(tiny_model("llama"), tmp_path / "llama")


@pytest.fixture
def nothing_loads(monkeypatch):
    """No weight is built or read after this."""
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", None)


def refused(folder, *facts):
    with pytest.raises(ModelError) as caught:
        load_model(folder, "float32", "cpu")
    said = str(caught.value)
    assert "\n" not in said
    assert str(folder) in said
    for fact in facts:
        assert str(fact) in said
    return said


@pytest.mark.parametrize("family", ALL)
def test_families_fit_their_files(family, tmp_path):
    folder = save(tiny_model(family), tmp_path)
    check_size(folder, stored_tensors(folder))
    load_model(folder, "float32", "cpu")


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gemma2"])
def test_a_model_of_more_blocks_is_refused_from_the_headers(family, tmp_path):
    folder = save(tiny_model(family), tmp_path)
    edit_config(folder, **{"n_layer" if family == "gpt2" else "num_hidden_layers": 3, "layer_types": None})
    said = refused(folder)
    assert re.search(r"\d+ tensors of the model are missing, first \S*\.2\.", said)


@pytest.mark.usefixtures("nothing_loads")
def test_a_wider_model_is_refused_from_the_headers(llama):
    edit_config(llama, intermediate_size=10**9)
    refused(llama, llama / "model.safetensors", "model.layers.0.mlp.down_proj.weight", (32, 48), (32, 10**9))


@pytest.mark.usefixtures("nothing_loads")
def test_the_defaults_of_a_family_are_refused_from_the_headers(llama):
    (llama / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 64}))
    refused(llama)


@pytest.mark.usefixtures("nothing_loads")
def test_names_of_earlier_releases_leave_the_numbers_to_compare(tmp_path):
    folder = save(tiny_model("gpt_neox"), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({f"old.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    edit_config(folder, num_hidden_layers=3)
    refused(folder)


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize("within", [None, "vision_config"])
@pytest.mark.parametrize("blocks", [10**6, 10**9, 10**30])
def test_no_blocks_are_built_that_no_tensor_is_for(blocks, within, llama):
    # layer_types is made for each block as soon as the configuration of such a family is read
    numbers = {"num_hidden_layers": blocks}
    edit_config(llama, model_type="qwen2", **({within: numbers} if within else numbers))
    refused(llama, f"{within}.num_hidden_layers" if within else "num_hidden_layers", blocks, "21")


def test_blocks_left_out_are_refused(llama):
    edit_config(llama, num_hidden_layers=1)
    refused(llama, "model.safetensors", "9 ", "model.layers.1.input_layernorm.weight", "(32,)")


@pytest.mark.parametrize("name", ["v_head.summary.weight", "model.layers.0.mlp.spare.weight"])
def test_weights_that_no_part_takes_are_refused(name, llama):
    add_tensors(llama, {name: torch.zeros(5, 7)})
    refused(llama, "1 ", name, (5, 7))


def test_what_is_left_over_on_the_hub_without_the_base_prefix_is_found(tmp_path):
    folder = save(tiny_model("gpt2"), tmp_path)
    file = folder / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    save_file({**tensors, "h.0.attn.bias": torch.ones(1, 1, 64, 64)}, file, {"format": "pt"})
    load_model(folder, "float32", "cpu")
    edit_config(folder, n_layer=1)
    refused(folder, "11 ", "h.1.attn.c_attn.weight", (32, 96))


@pytest.mark.parametrize(
    ("family", "name", "tensor"),
    [
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4)),
        ("gptj", "transformer.h.0.attn.bias", torch.ones(1, 1, 64, 64, dtype=torch.bool)),
        ("gptj", "transformer.h.0.attn.masked_bias", torch.tensor(-1e9)),
        ("gpt_neox", "gpt_neox.layers.0.attention.masked_bias", torch.tensor(-1e9)),
        ("deepseek_v3", "model.layers.61.eh_proj.weight", torch.ones(32, 64)),
        ("qwen3_5_text", "mtp.fc.weight", torch.ones(32, 64)),
        ("gemma2", "lm_head.weight", torch.ones(64, 32)),
    ],
)
def test_what_transformers_ignores_and_what_holds_no_weights_may_be_there(family, name, tensor, tmp_path):
    folder = save(tiny_model(family), tmp_path)
    add_tensors(folder, {name: tensor})
    load_model(folder, "float32", "cpu")
