"""The shapes that a configuration tells, against those that are found in the model itself."""

import json
import math
import re
from collections import Counter

import pytest
from configs import LLAMA_8B, LLAMA_70B, written
from families import DENSE, MIXTURE, save, tiny_model
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from prunelib.errors import ModelError
from prunelib.model.structure import find_layers
from prunelib.planning.needs import gram_bytes
from prunelib.planning.shapes import FAMILIES, outline


@pytest.mark.parametrize("family", [*DENSE, *MIXTURE])
def test_a_rule_says_what_is_found_in_the_model(tmp_path, family):
    model, planned = tiny_model(family), outline(written(family))
    index = find_layers(model, save(model, tmp_path))
    assert planned.known
    assert len(planned.blocks) == index.blocks
    for number, block in enumerate(planned.blocks):
        found = Counter((layer.rows, layer.inputs) for layer in index.of_block(number))
        assert sum((Counter({(m.rows, m.inputs): m.copies}) for m in block.matrices), Counter()) == found
        assert sorted(block.inputs) == sorted(layer.inputs for layer in index.readers(number))
    matrices = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1}
    assert planned.weights == sum(weight.numel() for weight in matrices.values())
    assert planned.prunable == sum(layer.rows * layer.inputs for layer in index.layers)


@pytest.mark.parametrize("family", DENSE)
def test_matrices_have_the_names_that_layers_have(tmp_path, family):
    model = tiny_model(family)
    found = find_layers(model, save(model, tmp_path)).of_block(0)
    assert [matrix.name for matrix in outline(written(family)).blocks[0].matrices] == [layer.kind for layer in found]


@pytest.mark.parametrize("family", [*DENSE, *MIXTURE])
def test_experts_are_merged_where_files_hold_each_for_itself(tmp_path, family):
    save(tiny_model(family), tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no iterator
    alone = (math.prod(shape) for name, shape in shapes.items() if re.search(r"experts\.\d+\.", name))
    assert outline(written(family)).merged == sum(alone)


def test_every_rule_is_tested():
    assert set(FAMILIES) == {*DENSE, *MIXTURE}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_config_leaves_out_is_what_transformers_takes(family):
    whole = json.loads(AutoConfig.for_model(family).to_json_string())
    optional = ("num_key_value_heads", "head_dim", "tie_word_embeddings", "n_inner", "decoder_sparse_step")
    assert outline({key: value for key, value in whole.items() if key not in optional}) == outline(whole)


def test_blocks_of_qwen3_moe_are_dense_where_its_config_says_so():
    config = written("qwen3_moe", num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3])
    assert [block.dense > 0 for block in outline(config).blocks] == [False, True, False, False]


def test_projected_embeddings_of_opt_are_counted():
    config = AutoConfig.for_model("opt", **DENSE["opt"] | {"word_embed_proj_dim": 8})
    model = AutoModelForCausalLM.from_config(config)
    weights = sum(weight.numel() for weight in model.parameters() if weight.ndim > 1)
    assert outline(written("opt", word_embed_proj_dim=8)).weights == weights < outline(written("opt")).weights


def test_the_text_part_of_a_larger_config_counts():
    whole = {"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": written("gemma3_text", dtype=None)}
    planned = outline(whole)
    assert (planned.family, planned.dtype) == ("gemma3_text", "bfloat16")
    assert planned.blocks == outline(written("gemma3_text")).blocks


def test_a_family_without_a_rule_has_a_llamas_shapes():
    planned = outline({**LLAMA_8B, "model_type": "stablelm"})
    assert not planned.known
    assert planned.blocks == outline(LLAMA_8B).blocks


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"hidden_size": None}, "config.json: hidden_size = None, expected a whole number above 0"),
        ({"num_hidden_layers": "32"}, "config.json: num_hidden_layers = '32', expected a whole number above 0"),
        ({"torch_dtype": "float8_e4m3fn"}, "config.json: dtype = 'float8_e4m3fn', expected one of float32, bfloat16, "),
    ],
)
def test_a_config_without_a_number_is_refused_in_one_line(change, line):
    with pytest.raises(ModelError, match=f"^{line}") as refusal:
        outline({**LLAMA_8B, **change})
    assert "\n" not in str(refusal.value)


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
    assert block.dense == 8 * 4096
