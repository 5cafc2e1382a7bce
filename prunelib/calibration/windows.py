"""Token windows: cut from a token stream, drawn at random or evenly spread, or drawn within documents."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from prunelib.errors import ParamsError, SourceError
from prunelib.model.prompts import special_tokens
from prunelib.model.vocabulary import check_ids, may_exceed
from prunelib.runtime.hashing import sha256_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PIECE = 2**23  # characters tokenised at once


def tokenize(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> torch.Tensor:
    """Tokenise all texts as one stream: joined with two newlines, with the default special tokens.

    A tokenizer that begins every sequence with a BOS token adds only one, at the start of the stream, as in the
    perplexity protocol of GPTQ and its successors (Frantar et al., 2210.17323).

    A text of more than 8 million characters is tokenised in pieces, as tokenizers take some 150 bytes of memory for
    each; the pieces end at the last empty line, or the last line, before that. Special tokens are those of the whole
    text; a tokenizer that begins each text with a space does so with each piece.

    Returns
    -------
    torch.Tensor
        (tokens,) int32.

    Raises
    ------
    ModelError
        If a token's id is beyond the model's embedding (:mod:`prunelib.model.vocabulary`).
    """
    text = "\n\n".join(texts)
    if len(text) <= _PIECE:
        return _token_ids(text, tokenizer)
    before, after = (torch.tensor(ids, dtype=torch.int32) for ids in special_tokens(tokenizer))
    pieces = (_token_ids(piece, tokenizer, add_special_tokens=False) for piece in _pieces(text, _PIECE))
    return torch.cat([before, *pieces, after])


def _token_ids(text: str, tokenizer: "PreTrainedTokenizerBase", *, add_special_tokens: bool = True) -> torch.Tensor:
    encoded = tokenizer(text, add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False)
    check_ids(encoded["input_ids"], tokenizer)
    return torch.tensor(encoded["input_ids"], dtype=torch.int32)


def _pieces(text: str, size: int) -> Iterator[str]:
    """Cut a text into pieces of at most ``size`` characters, if possible before an empty line or another line."""
    start = 0
    while len(text) - start > size:
        ends = (text.rfind(mark, start + 1, start + size) for mark in ("\n\n", "\n"))
        end = next((end for end in ends if end > start), start + size)
        yield text[start:end]
        start = end
    yield text[start:]


def check_texts(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> None:
    """Tokenise texts only if the tokenizer has ids beyond the model's embedding; raise as :func:`tokenize`."""
    if may_exceed(tokenizer):
        tokenize(texts, tokenizer)


def draw(
    how: Literal["stream", "documents"],
    documents: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    samples: int,
    length: int,
    seed: int,
    bos: int | None = None,
) -> torch.Tensor:
    """Draw windows (samples, length) int32 of the joined documents, or within documents.

    Parameters and errors: :func:`draw_windows` and :func:`draw_in_documents`.
    """
    if how == "documents":
        return draw_in_documents(documents, tokenizer, samples, length, seed, bos)
    return draw_windows(tokenize(documents, tokenizer), samples, length, seed, bos)


def draw_windows(tokens: torch.Tensor, samples: int, length: int, seed: int, bos: int | None = None) -> torch.Tensor:
    """Draw disjoint windows of a stream at random, without replacement.

    The stream is cut into windows from its start, and those with the smallest random keys are drawn, so that more
    samples with the same seed extend a draw. Keys are the raw output of NumPy's Philox generator, which is the same on
    every platform and in every version.

    Parameters
    ----------
    tokens
        (tokens,) int32.
    samples, length
        Number of windows, and tokens in each.
    seed
        Seed of the draw, at least 0.
    bos
        Token placed first in every window, counted in ``length``; None: windows are cut from the stream unchanged.

    Returns
    -------
    torch.Tensor
        (samples, length) int32, in the order drawn.

    Raises
    ------
    ParamsError
        If the stream has fewer than ``samples`` windows.
    """
    windows = _cut(tokens, length, bos)
    if samples > len(windows):
        raise ParamsError(
            f"calibration.samples = {samples}: the text has {len(tokens)} tokens, at most {len(windows)} windows "
            f"of calibration.length = {length}"
        )
    keys = np.random.Philox(seed).random_raw(len(windows))
    drawn = np.argsort(keys, kind="stable")[:samples]
    return windows[torch.from_numpy(drawn)]


def draw_in_documents(
    texts: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    samples: int,
    length: int,
    seed: int,
    bos: int | None = None,
) -> torch.Tensor:
    """Draw windows within documents, as the scripts of GPTQ, SparseGPT and Wanda draw theirs from C4.

    Documents are drawn at random, with replacement, until one is longer than a window; then the window's position in it
    is drawn. Python's ``random`` with the same seed gives the same draws as the scripts.

    Parameters
    ----------
    texts
        The documents, in order; each is tokenised separately, with the default special tokens.
    samples, length, seed, bos
        As in :func:`draw_windows`.

    Returns
    -------
    torch.Tensor
        (samples, length) int32, in the order drawn.

    Raises
    ------
    ParamsError
        If no document is longer than a window, or the windows together are longer than the documents.
    """
    size = sum(len(text.encode()) for text in texts)
    if samples * length > size:
        raise ParamsError(
            f"calibration.samples = {samples}: the documents of the text have {size} bytes, expected at most "
            f"{size // length} windows of calibration.length = {length}"
        )
    draw, body = random.Random(seed), length if bos is None else length - 1  # noqa: S311 - no secret
    windows: list[torch.Tensor] = []
    drawn_before: dict[int, torch.Tensor] = {}  # the tokens of documents; none of those that are too short
    too_short = 0
    while len(windows) < samples:
        if too_short == len(texts):
            raise ParamsError(f"calibration.length = {length}: no document of the text is longer")
        document = draw.randint(0, len(texts) - 1)
        if document not in drawn_before:
            tokens = _without_bos(tokenize(texts[document : document + 1], tokenizer), bos)
            drawn_before[document] = tokens if len(tokens) > body else tokens[:0]
            too_short += len(tokens) <= body
        if len(tokens := drawn_before[document]):
            start = draw.randint(0, len(tokens) - body - 1)
            windows.append(tokens[start : start + body])
    drawn = torch.stack(windows)
    return drawn if bos is None else torch.nn.functional.pad(drawn, (1, 0), value=bos)


def spread_windows(tokens: torch.Tensor, length: int, budget: int, bos: int | None = None) -> torch.Tensor:
    """Return as many disjoint windows of a stream as the budget allows, evenly spread over it, in order.

    With a budget of the whole stream these are its floor(tokens / length) consecutive windows, as in the perplexity
    protocol of GPTQ and its successors. With a smaller budget, spreading keeps one document from dominating the result.
    The tail is dropped.

    Parameters
    ----------
    tokens
        (tokens,) int32.
    length, budget
        Tokens in a window, and the maximum number of tokens in all windows.
    bos
        As in :func:`draw_windows`. With it, perplexity is not comparable with the papers' perplexity.

    Returns
    -------
    torch.Tensor
        (windows, length) int32.

    Raises
    ------
    ParamsError
        If the stream or the budget is shorter than one window.
    """
    windows = _cut(tokens, length, bos)
    count = min(len(windows), budget // length)
    if not count:
        raise ParamsError(
            f"evaluation.perplexity.length = {length}: the text has {len(tokens)} tokens and "
            f"evaluation.perplexity.tokens = {budget}; expected at most {min(len(tokens), budget)}"
        )
    return windows[torch.arange(count) * len(windows) // count]


def bos_of(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the id of the token that begins a sequence.

    Raises
    ------
    ParamsError
        If the tokenizer has no BOS token.
    ModelError
        If its id is beyond the model's embedding.
    """
    if tokenizer.bos_token_id is None:
        raise ParamsError("bos_per_window: true, but the model's tokenizer has no BOS token; set it to false")
    check_ids([tokenizer.bos_token_id], tokenizer)
    return int(tokenizer.bos_token_id)


def tokenizer_identity(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the SHA-256 of all that determines a tokenizer's ids: vocabulary, merges, normalisation, special tokens.

    Truncation and padding are excluded: they are state of the last call, not part of the tokenizer.

    Raises
    ------
    SourceError
        If it is not a fast tokenizer; only these serialise their full definition.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise SourceError(f"tokenizer {type(tokenizer).__name__}: expected a fast tokenizer (a tokenizer.json file)")
    definition = json.loads(backend.to_str())
    return sha256_json({key: value for key, value in definition.items() if key not in {"truncation", "padding"}})


def _cut(tokens: torch.Tensor, length: int, bos: int | None) -> torch.Tensor:
    if bos is not None:
        return torch.nn.functional.pad(_cut(_without_bos(tokens, bos), length - 1, None), (1, 0), value=bos)
    count = len(tokens) // length
    return tokens[: count * length].view(count, length)


def _without_bos(tokens: torch.Tensor, bos: int | None) -> torch.Tensor:
    """Return the stream without its leading BOS token, if it has one."""
    return tokens[1:] if len(tokens) and tokens[0] == bos else tokens


def in_batches(parts: Iterable[torch.Tensor], batch: int) -> tuple[list[torch.Tensor], list[range]]:
    """Split windows (samples, length) into batches; return these, and the batch numbers of each non-empty part."""
    batches: list[torch.Tensor] = []
    numbers = []
    for windows in parts:
        if len(windows):
            first = len(batches)
            batches += windows.split(batch)
            numbers.append(range(first, len(batches)))
    return batches, numbers
