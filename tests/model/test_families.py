"""Families of different shape through all that the library does, against brute force.

``python benchmarks/correctness/families.py`` does the same with every family of transformers.
"""

import warnings

import pytest
from brute_force import check_model, save_random
from tiny_configs import FAMILIES, WORDS, tiny_config
from transformers import AutoModelForCausalLM

from prunelib.errors import ModelError

RIGHT = {  # family: what its shape is
    "bert": "an encoder run as a decoder",
    "bloom": "blocks that return tuples",
    "cohere2": "attention and MLP side by side",
    "deepseek_v3": "latent attention, grouped routing",
    "falcon": "products without a linear function",
    "gemma3n_text": "several streams, keys of earlier blocks, an embedding per block",
    "glm4": "norms after attention",
    "gpt2": "transposed weights",
    "gpt_oss": "experts that are not multiplied slice by slice",
    "granitemoehybrid": "a state space and attention",
    "jamba": "a state space whose projection is used without its module",
    "kimi_linear": "a delta rule, latent attention and experts",
    "lfm2": "convolutions",
    "llama4_text": "experts all run on all tokens",
    "longcat_flash": "blocks that count twice",
    "mamba2": "a state space alone",
    "mixtral": "experts under other names in the files",
    "qwen3_next": "a gated delta rule, shared experts",
    "rwkv": "a recurrence",
    "xglm": "learnt nothing, positions computed",
    "zamba": "one block shared by all",
}
REFUSED = {
    "blt": "model.global_transformer.layers",
    "xlm": "transformer.attentions",
    "hrm_text": "model.L_module.layers",
}


def folder_of(family, folder):
    if family not in FAMILIES:
        pytest.skip(f"this transformers has no {family}")
    model = AutoModelForCausalLM.from_config(tiny_config(family), experts_implementation="eager")
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_random(model.eval(), folder, WORDS)
    return folder


@pytest.mark.parametrize("family", RIGHT)
def test_a_family_is_pruned_as_by_brute_force(family, tmp_path):
    figures = check_model(folder_of(family, tmp_path / "model"), tmp_path, WORDS)
    assert 0 < figures["coverage"] <= 1
    assert figures["layers"] >= 2


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_cannot_be_pruned_is_refused_by_the_name_of_its_module(family, tmp_path):
    with pytest.raises(ModelError, match=REFUSED[family]) as refusal:
        check_model(folder_of(family, tmp_path / "model"), tmp_path, WORDS)
    assert "\n" not in str(refusal.value)
