"""Tokenising once, cutting and drawing windows, and the identity of a tokenizer."""

# ruff: noqa: S106 - the tokens of a vocabulary are no passwords

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from prunelib.calibration import windows
from prunelib.calibration.windows import (
    bos_of,
    draw_in_documents,
    draw_windows,
    spread_windows,
    tokenize,
    tokenizer_identity,
)
from prunelib.errors import ParamsError, SourceError

WORDS = ["<bos>", "<unk>", "the", "state", "of", "union"]


def word_tokenizer(words: list[str] = WORDS, *, begins: bool = True) -> PreTrainedTokenizerFast:
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    if begins:
        backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<bos>", model_max_length=8)


def stream(tokens: int) -> torch.Tensor:
    return torch.arange(tokens, dtype=torch.int32)


def test_texts_become_one_stream_with_one_bos() -> None:
    tokens = tokenize(["the state", "of the union"], word_tokenizer())
    assert tokens.dtype == torch.int32
    assert tokens.tolist() == [0, 2, 3, 4, 2, 5]


def test_a_tokenizer_without_bos_adds_none() -> None:
    assert tokenize(["the", "state"], word_tokenizer(begins=False)).tolist() == [2, 3]


def test_texts_are_joined_with_two_newlines() -> None:
    characters = Tokenizer(WordLevel({"a": 0, "\n": 1, "<unk>": 2}, unk_token="<unk>"))
    characters.pre_tokenizer = Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=characters, unk_token="<unk>")
    assert tokenize(["a", "", "a"], tokenizer).tolist() == [0, 1, 1, 1, 1, 0]


def test_a_text_longer_than_the_model_takes_makes_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(tokenize(["the state of the union"] * 100, word_tokenizer())) == 501
    assert capfd.readouterr() == ("", "")


@given(st.text(alphabet="ab\n", max_size=60), st.integers(1, 20))
def test_a_long_text_is_cut_before_lines(text: str, size: int) -> None:
    pieces = list(windows._pieces(text, size))
    assert "".join(pieces) == text
    assert all(len(piece) <= size for piece in pieces)
    for piece, following in pairwise(pieces):
        assert following.startswith("\n") or "\n" not in piece[1:]


def test_a_text_in_pieces_has_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["the state of the union", "of the state", "the union"] * 9
    expected = tokenize(texts, word_tokenizer())
    monkeypatch.setattr(windows, "_PIECE", 30)
    assert torch.equal(tokenize(texts, word_tokenizer()), expected)


def test_special_tokens_after_a_text_stay_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = word_tokenizer()
    processor = TemplateProcessing(single="<bos> $A <bos>", special_tokens=[("<bos>", 0)])
    ends.backend_tokenizer.post_processor = processor
    texts = ["the state of the union", "of the state", "the union"] * 9
    expected = tokenize(texts, ends)
    assert (expected == 0).nonzero().flatten().tolist() == [0, len(expected) - 1]
    monkeypatch.setattr(windows, "_PIECE", 30)
    assert torch.equal(tokenize(texts, ends), expected)


def test_no_text_has_no_tokens() -> None:
    tokens = tokenize([], word_tokenizer(begins=False))
    assert tokens.shape == (0,)
    assert tokens.dtype == torch.int32


@pytest.mark.parametrize(("tokens", "windows"), [(341_469, 166), (289_076, 141)])
def test_wikitext_has_the_published_number_of_windows(tokens: int, windows: int) -> None:
    assert spread_windows(stream(tokens), 2048, tokens).shape == (windows, 2048)


@given(tokens=st.integers(2, 500), length=st.integers(2, 50), budget=st.integers(2, 600))
def test_spread_windows_are_disjoint_and_evenly_spaced(tokens: int, length: int, budget: int) -> None:
    cells = tokens // length
    count = min(cells, budget // length)
    if count == 0:
        with pytest.raises(ParamsError):
            spread_windows(stream(tokens), length, budget)
        return
    windows = spread_windows(stream(tokens), length, budget)
    assert (windows.diff(dim=1) == 1).all()
    numbers = [first // length for first in windows[:, 0].tolist()]
    assert len(windows) == count
    assert numbers[0] == 0
    assert {later - earlier for earlier, later in pairwise(numbers)} <= {cells // count, -(-cells // count)}


def test_a_budget_of_the_whole_stream_takes_its_windows_one_after_another() -> None:
    assert spread_windows(stream(23), 4, 23).flatten().tolist() == list(range(20))


def test_a_text_without_a_window_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"^evaluation.perplexity.length = 9: the text has 20 tokens .* at most 8$"):
        spread_windows(stream(20), 9, 8)


@given(data=st.data(), length=st.integers(2, 20), cells=st.integers(1, 60), tail=st.integers(0, 19))
def test_drawn_windows_are_disjoint_pieces_of_the_stream(
    data: st.DataObject, length: int, cells: int, tail: int
) -> None:
    samples, seed = data.draw(st.integers(1, cells)), data.draw(st.integers(0, 2**63))
    drawn = draw_windows(stream(cells * length + tail % length), samples, length, seed)
    assert drawn.shape == (samples, length)
    assert drawn.dtype == torch.int32
    assert (drawn.diff(dim=1) == 1).all()
    assert drawn.unique().numel() == drawn.numel()


def test_a_draw_is_the_same_everywhere() -> None:
    assert draw_windows(stream(100), 4, 10, seed=0)[:, 0].tolist() == [0, 80, 90, 30]
    assert draw_windows(stream(100), 4, 10, seed=1)[:, 0].tolist() == [20, 0, 10, 40]


def test_more_samples_extend_a_draw() -> None:
    few, many = draw_windows(stream(1000), 5, 10, seed=3), draw_windows(stream(1000), 50, 10, seed=3)
    assert torch.equal(few, many[:5])


def test_a_draw_spreads_over_the_text() -> None:
    starts = draw_windows(stream(100_000), 1000, 10, seed=0)[:, 0].double()
    assert starts.mean().item() == pytest.approx(50_000, abs=5 * 100_000 / 12**0.5 / 1000**0.5)


def test_all_windows_can_be_drawn_but_not_one_more() -> None:
    assert sorted(draw_windows(stream(39), 3, 10, seed=0)[:, 0].tolist()) == [0, 10, 20]
    message = r"^calibration.samples = 4: the text has 39 tokens, at most 3 windows of calibration.length = 10$"
    with pytest.raises(ParamsError, match=message):
        draw_windows(stream(39), 4, 10, seed=0)


def test_an_empty_text_has_no_windows() -> None:
    with pytest.raises(ParamsError, match="at most 0 windows"):
        draw_windows(stream(0), 1, 10, seed=0)


def test_a_tokenizer_is_known_by_its_definition() -> None:
    identity = tokenizer_identity(word_tokenizer())
    assert identity == tokenizer_identity(word_tokenizer())
    assert identity != tokenizer_identity(word_tokenizer(begins=False))
    assert identity != tokenizer_identity(word_tokenizer([*WORDS, "address"]))


def test_use_does_not_change_a_tokenizers_identity() -> None:
    tokenizer = word_tokenizer()
    identity = tokenizer_identity(tokenizer)
    tokenizer("the state of the union", truncation=True, max_length=3)
    assert tokenizer_identity(tokenizer) == identity


def test_a_tokenizer_without_a_definition_is_refused() -> None:
    with pytest.raises(SourceError, match=r"^tokenizer object: expected a fast tokenizer"):
        tokenizer_identity(object())


def test_windows_with_a_bos_are_plain_cuts_after_it() -> None:
    tokens = torch.arange(1, 20, dtype=torch.int32)  # 1 is the tokenizer's own BOS at the start
    windows = spread_windows(tokens, length=4, budget=100, bos=1)
    assert windows.tolist() == [[1, first, first + 1, first + 2] for first in range(2, 18, 3)]
    drawn = draw_windows(tokens, samples=3, length=4, seed=0, bos=1)
    assert (drawn[:, 0] == 1).all()
    assert {tuple(window) for window in drawn.tolist()} <= {tuple(window) for window in windows.tolist()}


def test_windows_cannot_begin_with_a_bos_that_there_is_none_of() -> None:
    tokenizer = word_tokenizer()
    assert bos_of(tokenizer) == 0
    tokenizer.bos_token = None
    with pytest.raises(ParamsError, match="bos_per_window: true, but the model's tokenizer has no BOS token"):
        bos_of(tokenizer)


NAMES = [f"w{number}" for number in range(200)]
DOCUMENTS = [" ".join(NAMES[start:stop]) for start, stop in ((0, 5), (10, 40), (50, 54), (60, 75), (100, 200))]


def as_in_the_scripts(samples: int, length: int, seed: int, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The draw of SparseGPT's and Wanda's scripts, from its description."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    windows = []
    for _ in range(samples):
        while True:
            tokens = tokenizer(DOCUMENTS[draw.randint(0, len(DOCUMENTS) - 1)])["input_ids"]
            if len(tokens) > length:
                break
        start = draw.randint(0, len(tokens) - length - 1)
        windows.append(tokens[start : start + length])
    return windows


@given(samples=st.integers(1, 12), length=st.integers(2, 20), seed=st.integers(0, 1000), begins=st.booleans())
def test_windows_in_documents_are_those_of_the_scripts(samples: int, length: int, seed: int, begins: bool) -> None:
    tokenizer = word_tokenizer(["<bos>", "<unk>", *NAMES], begins=begins)
    drawn = draw_in_documents(DOCUMENTS, tokenizer, samples, length, seed)
    assert drawn.tolist() == as_in_the_scripts(samples, length, seed, tokenizer)
    assert drawn.dtype == torch.int32


def test_windows_in_documents_may_begin_with_bos() -> None:
    tokenizer = word_tokenizer(["<bos>", "<unk>", *NAMES])
    drawn = draw_in_documents(DOCUMENTS, tokenizer, samples=8, length=6, seed=0, bos=0)
    assert drawn.shape == (8, 6)
    assert (drawn == 0).sum(dim=1).tolist() == [1] * 8
    assert (drawn[:, 0] == 0).all()
    assert (drawn[:, 1:].diff() == 1).all()


def test_documents_that_are_all_too_short_are_refused() -> None:
    with pytest.raises(ParamsError, match=r"calibration\.length = 4: no document of the text is longer"):
        draw_in_documents(["the state"] * 3, word_tokenizer(), samples=1, length=4, seed=0)


@pytest.mark.parametrize("samples", [10, 10**9, 10**30])
def test_windows_in_documents_are_no_longer_than_these_together(samples: int) -> None:
    text = "the state of the union"  # 22 bytes
    draw_in_documents([text, text], word_tokenizer(), samples=9, length=4, seed=0)
    with pytest.raises(
        ParamsError, match=rf"calibration\.samples = {samples + 2}: .* 44 bytes, .* 11 windows"
    ) as caught:
        draw_in_documents([text, text], word_tokenizer(), samples=samples + 2, length=4, seed=0)
    assert "\n" not in str(caught.value)


def test_a_document_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    asked = windows.tokenize
    monkeypatch.setattr(windows, "tokenize", lambda text, tokenizer: texts.extend(text) or asked(text, tokenizer))
    draw_in_documents(DOCUMENTS, word_tokenizer(["<bos>", "<unk>", *NAMES]), samples=12, length=20, seed=0)
    assert len(texts) == len(set(texts))
