"""Tokenizers of GGUF files against transformers' own of the same family and vocabulary."""

import json

import pytest
from gguf_files import CONTROL, MERGES, QWEN2, TOKENS, plain_tensors, tiny_qwen2, write_gguf
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen2Tokenizer

from prunelib.sources.gguf import convert

WORDS = [
    "don't",
    "I'LL",
    "In 2024",
    "caf\u00e9",
    "cafe\u0301",
    "\n\n",
    "  the",
    "1 2",
    "a.b\r\n",
    "<|im_end|>",
    "\u6f22\u5b57",
]
EXTRA = ["<tool>", "[PAD0]"]


def converted(folder, **changes):
    """A tiny Qwen2 with a user-defined and an unused token at the end of its vocabulary."""
    tokens = [*TOKENS[: -len(EXTRA)], *EXTRA]  # the merges that lose their token go
    kept = [merge for merge in MERGES if merge.replace(" ", "") in tokens]
    kinds = [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL) - 2) + [4, 5]
    metadata = QWEN2 | {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": kept,
    }
    convert(write_gguf(folder / "tiny.gguf", metadata | changes, plain_tensors(tiny_qwen2(tied=True))), folder)
    return tokens, kept


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The converted tokenizer, and the family's own of the same vocabulary."""
    folder = tmp_path_factory.mktemp("qwen2")
    tokens, merges = converted(folder)
    vocabulary = {token: index for index, token in enumerate(tokens[:-2])}
    own = Qwen2Tokenizer(vocabulary, [tuple(merge.split(" ")) for merge in merges], additional_special_tokens=CONTROL)
    return Tokenizer.from_file(str(folder / "tokenizer.json")), own


@given(text=st.text(max_size=30) | st.lists(st.sampled_from(WORDS), max_size=5).map("".join))
def test_qwen2_cuts_any_text_as_the_family_does(both, text):
    found, own = both
    assert found.encode(text).ids == own(text).input_ids


def test_unused_tokens_are_no_tokens_and_user_defined_ones_are_not_special(tmp_path):
    tokens, _ = converted(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == len(tokens) - 1
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == len(tokens)
    assert tokenizer("a<tool>b").input_ids == [tokens.index(token) for token in ("a", "<tool>", "b")]
    assert tokenizer.decode(tokenizer("a<tool>b<|im_end|>").input_ids, skip_special_tokens=True) == "a<tool>b"


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        ("gpt-2", ["the", "\u0120", "12"]),
        ("smollm", ["the", "\u0120", "1", "2"]),
        ("qwen2", ["the", "\u0120", "1", "2"]),
    ],
)
def test_each_pre_tokenizer_cuts_digits_in_its_way(tmp_path, words, tokens):
    merges = {"tokenizer.ggml.merges": ["t he", "h e", "1 2"]}
    vocabulary = [*TOKENS[:-4], "he", "the", "12", "x1"]
    changes = {"tokenizer.ggml.tokens": vocabulary, "tokenizer.ggml.token_type": [1] * len(vocabulary)}
    convert(
        write_gguf(
            tmp_path / "tiny.gguf",
            QWEN2 | changes | merges | {"tokenizer.ggml.pre": words},
            plain_tensors(tiny_qwen2(tied=True)),
        ),
        tmp_path,
    )
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("the 12").tokens == tokens
