"""The shapes that a configuration tells, against those that are found in the model itself."""

import json
import math
import re

import pytest
from configs import LLAMA_8B, LLAMA_70B, published, written
from families import ALL, DENSE, MIXTURE, save, tiny_model
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from prunelib.errors import ModelError
from prunelib.model.structure import find_layers
from prunelib.planning import tables
from prunelib.planning.capacity import Free
from prunelib.planning.needs import Workload, gram_bytes
from prunelib.planning.outline import outline
from prunelib.runtime.machine import budgets


@pytest.mark.parametrize("family", ALL)
def test_the_plan_has_the_sizes_of_the_model_itself(tmp_path, family):
    model = tiny_model(family)
    index = find_layers(model, save(model, tmp_path))
    planned = outline(json.loads((tmp_path / "config.json").read_text()))
    assert planned.weights == model.num_parameters()
    assert planned.prunable == sum(layer.rows * layer.inputs for layer in index.layers)
    assert len(planned.blocks) == index.blocks
    for number, block in enumerate(planned.blocks):
        layers = index.of_block(number)
        assert [(each.kind, each.rows, each.inputs) for each in block.matrices] == [
            (layer.kind, layer.rows, layer.inputs) for layer in layers
        ]
        assert block.inputs == [layer.inputs for layer in index.readers(number)]


@pytest.mark.parametrize("family", [*DENSE, *MIXTURE])
def test_experts_are_merged_where_files_hold_each_for_itself(tmp_path, family):
    save(tiny_model(family), tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no iterator
    alone = (math.prod(shape) for name, shape in shapes.items() if re.search(r"experts\.\d+\.", name))
    assert outline(written(family)).merged == sum(alone)


@pytest.mark.parametrize("family", [*DENSE, *MIXTURE])
def test_what_a_config_leaves_out_is_what_transformers_takes(family):
    whole = json.loads(AutoConfig.for_model(family, num_hidden_layers=2).to_json_string())
    optional = ("num_key_value_heads", "head_dim", "tie_word_embeddings", "n_inner", "decoder_sparse_step")
    planned = outline(whole)
    assert outline({key: value for key, value in whole.items() if key not in optional}) == planned


def test_explicit_nulls_are_what_transformers_takes():
    small = {**LLAMA_8B, "num_hidden_layers": 1}
    without = {key: value for key, value in small.items() if key != "num_key_value_heads"}
    nulls = {"num_key_value_heads": None, "head_dim": None, "rope_scaling": None, "pad_token_id": None}
    assert outline({**small, **nulls}) == outline(without) == outline({**small, "num_key_value_heads": 32})


@pytest.mark.parametrize(
    ("name", "blocks", "prunable", "language_model", "all_parameters"),
    [
        ("gemma3_4b", 34, 3.2087, 3.8801, 4.3001),  # its text_config leaves out what equals transformers' defaults
        ("deepseek_v3", 61, 669.07, 671.03, 671.03),
    ],
)
def test_published_configurations_have_the_known_sizes(name, blocks, prunable, language_model, all_parameters):
    planned = outline(published(name))
    assert len(planned.blocks) == blocks
    assert planned.prunable / 1e9 == pytest.approx(prunable, rel=1e-4)
    assert (planned.weights - planned.beside) / 1e9 == pytest.approx(language_model, rel=1e-3)
    assert planned.weights / 1e9 == pytest.approx(all_parameters, rel=1e-3)
    headline = next(tables.plan(planned, Workload(), budgets(), Free(disk=0, memory=0, gpu=None)))
    assert f"{blocks} blocks; {prunable:.3g} of {language_model:.3g} billion weights prunable" in headline


def test_blocks_of_qwen3_moe_are_dense_where_its_config_says_so():
    config = written("qwen3_moe", num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3])
    gate, norms = 4 * 32, 2 * 32 + 2 * 8
    assert [block.dense for block in outline(config).blocks] == [norms, norms + gate, norms, norms]


def test_projected_embeddings_of_opt_are_counted():
    config = AutoConfig.for_model("opt", **DENSE["opt"] | {"word_embed_proj_dim": 8})
    model = AutoModelForCausalLM.from_config(config)
    weights = model.num_parameters()
    assert outline(written("opt", word_embed_proj_dim=8)).weights == weights < outline(written("opt")).weights


def test_the_text_part_of_a_larger_config_counts():
    whole = {"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": written("gemma3_text", dtype=None)}
    planned = outline(whole)
    assert (planned.family, planned.dtype) == ("gemma3_text", "bfloat16")
    assert planned.blocks == outline(written("gemma3_text")).blocks


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"hidden_size": None}, ("llama", "hidden_size", "None")),
        ({"num_hidden_layers": "32"}, ("llama", "num_hidden_layers", "'32'")),
        ({"torch_dtype": "float8_e4m3fn"}, ("dtype", "'float8_e4m3fn'", "bfloat16")),
        ({"model_type": "lama"}, ("model_type", "'lama'")),
        ({"model_type": "t5"}, ("t5",)),
        ({"model_type": ["llama"]}, ("model_type", "['llama']")),
        ({"text_config": [1]}, ("text_config", "[1]")),
        ({"model_type": "blt"}, ("BltForCausalLM", "num_hidden_layers", "model.global_transformer.layers of")),
    ],
)
def test_a_config_that_gives_no_model_is_refused_in_one_line(change, facts):
    with pytest.raises(ModelError) as refusal:
        outline({**LLAMA_8B, **change})
    line = str(refusal.value)
    assert "\n" not in line
    assert all(fact in line for fact in facts)


def test_infinities_are_read_as_transformers_writes_them():
    config = AutoConfig.for_model("bamba", num_hidden_layers=1, vocab_size=64)
    assert "Infinity" in config.to_json_string()
    assert len(outline(json.loads(config.to_json_string())).blocks) == 1


@pytest.mark.parametrize(
    ("config", "block", "all_blocks", "weights"),
    [(LLAMA_8B, 1.0234, 32.75, 8.0300), (LLAMA_70B, 4.0936, 327.49, 70.5524)],
)
def test_llama_3_1_has_the_known_sizes(config, block, all_blocks, weights):
    planned = outline(config)
    assert gram_bytes(planned.blocks[0]) / 1e9 == pytest.approx(block, rel=1e-4)
    assert sum(map(gram_bytes, planned.blocks)) / 1e9 == pytest.approx(all_blocks, rel=1e-4)
    assert planned.weights / 1e9 == pytest.approx(weights, rel=1e-4)


def test_experts_have_a_gram_matrix_each():
    (block,) = outline({**LLAMA_8B, "model_type": "mixtral", "num_local_experts": 8, "num_hidden_layers": 1}).blocks
    assert sorted(block.inputs) == [4096] * (2 + 8) + [14336] * 8
    assert block.prunable == 8 * 3 * 4096 * 14336 + 2 * 4096 * (4096 + 1024)
    assert block.dense == 8 * 4096 + 2 * 4096
