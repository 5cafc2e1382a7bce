"""Keys of GGUF files: what changes the model is in its configuration, or refused by name and value."""

import json
import re

import pytest
from gguf_files import (
    CONTROL,
    HEAD_DIM,
    HEADS,
    MERGES,
    METADATA,
    QWEN2,
    TOKENS,
    gguf_tensors,
    plain_tensors,
    tiny_llama,
    tiny_qwen2,
    write_gguf,
)

from prunelib.errors import SourceError
from prunelib.sources.gguf import convert

LLAMA_TENSORS = gguf_tensors(tiny_llama(tied=True))
QWEN2_TENSORS = plain_tensors(tiny_qwen2(tied=True))
KINDS = METADATA["tokenizer.ggml.token_type"]


def converted(folder, change, base=METADATA, tensors=LLAMA_TENSORS):
    """The configuration of a file with changed metadata; None removes a key."""
    metadata = {key: value for key, value in (base | change).items() if value is not None}
    convert(write_gguf(folder / "tiny.gguf", metadata, tensors), folder)
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "rope"),
    [
        ({"factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"factor": 2.5, "type": "linear"}, {"rope_type": "linear", "factor": 2.5}),
        ({"factor": 4.0, "type": "none"}, {"rope_type": "default"}),
        ({"factor": 1.0, "type": "linear"}, {"rope_type": "default"}),
        ({"factor": 0.0}, {"rope_type": "default"}),
        ({"type": "linear"}, {"rope_type": "default"}),
    ],
)
def test_a_scaled_rotary_embedding_is_what_llama_cpp_makes_of_it(tmp_path, change, rope):
    found = converted(tmp_path, {f"llama.rope.scaling.{key}": value for key, value in change.items()})
    assert found["rope_parameters"] == {"rope_theta": 50000.0, **rope}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.causal", True),
        ("attention.key_length", HEAD_DIM),
        ("attention.sliding_window", 0),
        ("attention.value_length", HEAD_DIM),
        ("expert_count", 0),
        ("logit_scale", 1.0),
        ("rope.dimension_count", HEAD_DIM),
        ("rope.scaling.attn_factor", 1.0),
        ("rope.scaling.finetuned", False),
        ("vocab_size", len(TOKENS)),
    ],
)
def test_a_key_that_changes_nothing_is_accepted(tmp_path, key, value):
    unchanged = (tmp_path / "a", tmp_path / "b")
    for folder in unchanged:
        folder.mkdir()
    assert converted(unchanged[0], {f"llama.{key}": value}) == converted(unchanged[1], {})


def test_keys_that_llama_cpp_does_not_read_are_accepted(tmp_path):
    others = {"general.name": "Tiny", "general.type": "model", "quantize.imatrix.file": "x", "mine.note": "y"}
    assert converted(tmp_path, others | {"tokenizer.ggml.eot_token_id": 2, "split.count": 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.architecture", "mamba"),
        ("general.quantization_version", 1),
        ("general.type", "adapter"),
        ("llama.attention.causal", False),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count", "4"),
        ("llama.attention.head_count", [4, 4]),
        ("llama.attention.head_count", 6),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.key_length", 15),
        ("llama.attention.layer_norm_rms_epsilon", float("nan")),
        ("llama.attention.layer_norm_rms_epsilon", "small"),
        ("llama.attention.sliding_window", 16),
        ("llama.attention.value_length", 8),
        ("llama.block_count", 4_000_000_000),
        ("llama.block_count", True),
        ("llama.context_length", 0),
        ("llama.expert_count", 8),
        ("llama.expert_used_count", 2),
        ("llama.logit_scale", 0.5),
        ("llama.no_such_key", 1),
        ("llama.rope.dimension_count", HEAD_DIM // 2),
        ("llama.rope.freq_base", float("inf")),
        ("llama.rope.freq_base", -1.0),
        ("llama.rope.scaling.factor", -2.0),
        ("llama.rope.scaling.type", "yarn"),
        ("llama.vocab_size", 7),
        ("tokenizer.chat_template", 1),
        ("tokenizer.ggml.add_bos_token", True),
        ("tokenizer.ggml.add_eos_token", True),
        ("tokenizer.ggml.add_space_prefix", True),
        ("tokenizer.ggml.eos_token_id", len(TOKENS)),
        ("tokenizer.ggml.merges", [1, 2]),
        ("tokenizer.ggml.model", "llama"),
        ("tokenizer.ggml.no_such_key", 1),
        ("tokenizer.ggml.pre", "falcon"),
        ("tokenizer.ggml.token_type", [1.0] * len(TOKENS)),
        ("tokenizer.ggml.tokens", 7),
        ("tokenizer.ggml.unknown_token_id", len(TOKENS) + 5),
    ],
)
def test_what_changes_the_model_and_is_not_supported_is_refused_by_key_and_value(tmp_path, key, value):
    with pytest.raises(
        SourceError, match=rf"^tiny\.gguf: .*{re.escape(key)} = {re.escape(repr(value)[:20])}"
    ) as caught:
        converted(tmp_path, {key: value})
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"llama.block_count": None}, ["llama.block_count"]),
        ({"tokenizer.ggml.tokens": None}, ["tokenizer.ggml.tokens"]),
        ({"llama.block_count": 1}, ["blk.1.attn_k.weight"]),
        ({"llama.block_count": 3}, ["blk.2.attn_k.weight"]),
        ({"llama.feed_forward_length": 32}, ["blk.0.ffn_gate.weight", "(96, 64)", "(32, 64)"]),
        ({"tokenizer.ggml.merges": [*MERGES, "q q"]}, ["tokenizer.ggml.merges", "'q q'"]),
        ({"tokenizer.ggml.merges": [*MERGES, "qq"]}, ["tokenizer.ggml.merges", "'qq'"]),
        ({"tokenizer.ggml.token_type": [*KINDS[:-1], 6]}, ["tokenizer.ggml.token_type", "6", repr(TOKENS[-1])]),
        (
            {"tokenizer.ggml.token_type": KINDS[:-1]},
            ["tokenizer.ggml.token_type", str(len(TOKENS) - 1), str(len(TOKENS))],
        ),
        ({"tokenizer.ggml.tokens": [*TOKENS[:-1], CONTROL[0]]}, ["tokenizer.ggml.tokens"]),
        ({"split.count": 3, "split.no": 1}, ["split.count = 3", "2 of 3"]),
    ],
)
def test_damaged_metadata_is_refused_with_its_facts(tmp_path, change, facts):
    with pytest.raises(SourceError, match=r"^tiny\.gguf: ") as caught:
        converted(tmp_path, change)
    assert all(fact in str(caught.value) for fact in facts), caught.value
    assert "\n" not in str(caught.value)


def test_qwen2_has_its_own_keys(tmp_path):
    found = converted(tmp_path, {"llama.logit_scale": 0.5}, QWEN2, QWEN2_TENSORS)  # a key of another architecture
    assert (found["model_type"], found["num_attention_heads"], found["head_dim"]) == ("qwen2", HEADS, HEAD_DIM)
    with pytest.raises(SourceError, match=r"qwen2\.logit_scale = 0\.5"):
        converted(tmp_path, {"qwen2.logit_scale": 0.5}, QWEN2, QWEN2_TENSORS)
