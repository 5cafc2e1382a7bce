"""Token ids against the rows of the embedding, from the folder on."""

import json

import pytest
from families import WORDS, save, tiny_model
from pipeline_project import character_tokenizer

from prunelib.calibration.windows import bos_of, check_texts, tokenize
from prunelib.errors import ModelError
from prunelib.model.structure import load_tokenizer
from prunelib.model.vocabulary import embedding_rows, limit_ids, may_exceed


@pytest.fixture
def folder(tmp_path):
    """A model of 64 words, with a tokenizer of 40 tokens more than it needs."""
    tokenizer = character_tokenizer()
    tokenizer.add_tokens([f"<extra{number}>" for number in range(40)])
    tokenizer.save_pretrained(save(tiny_model("llama"), tmp_path))
    return tmp_path


def test_ids_beyond_the_embedding_are_refused_where_they_occur(folder):
    tokenizer = load_tokenizer(folder)
    assert may_exceed(tokenizer)
    first = next(number for number in range(40) if tokenizer.convert_tokens_to_ids(f"<extra{number}>") == WORDS)
    assert tokenize([f"a b<extra{first - 1}>"], tokenizer).max() == WORDS - 1
    for check in (tokenize, check_texts):
        check(["a b"], tokenizer)
        with pytest.raises(ModelError, match=rf"<extra{first}>.* {WORDS}.* {WORDS} rows") as caught:
            check(["a b", f"c <extra{first}>"], tokenizer)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bos_beyond_the_embedding_is_refused(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.bos_token = "<extra39>"  # noqa: S105 - no password
    with pytest.raises(ModelError, match="<extra39>"):
        bos_of(tokenizer)


def test_a_tokenizer_within_the_embedding_is_not_asked_twice(folder):
    tokenizer = load_tokenizer(folder)
    limit_ids(tokenizer, max(tokenizer.get_vocab().values()) + 1)
    assert not may_exceed(tokenizer)
    check_texts(["<extra39>"], tokenizer)
    assert len(tokenize(["<extra39>"], tokenizer)) == 1


def test_rows_are_those_of_the_text_model(folder):
    assert embedding_rows(folder) == WORDS
    text = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": {"vocab_size": 77}}))
    assert embedding_rows(folder) == 77
    (folder / "config.json").write_text(json.dumps({**text, "model_type": "no_such_model"}))
    assert embedding_rows(folder) is None
