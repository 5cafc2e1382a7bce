"""Byte-level BPE tokenizers of GGUF files.

A file names its pre-tokenizer, the rule by which text is cut into words before merging; those here are exactly the
families' own.
"""

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from prunelib.errors import SourceError
from prunelib.sources.gguf.metadata import Metadata

_ROLES = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer(metadata: Metadata) -> Tokenizer:
    """Return the tokenizer of a file; unused tokens, which pad the embedding, are no part of it.

    Raises
    ------
    SourceError
        If its pre-tokenizer is not known, or tokens, their types and merges do not fit each other.
    """
    normaliser, words = _text_rules(metadata)
    tokens, kinds = metadata.texts("tokenizer.ggml.tokens"), _kinds(metadata)
    vocabulary = {token: index for index, token in enumerate(tokens) if kinds[index] != _UNUSED}
    encoder = Tokenizer(models.BPE(vocab=vocabulary, merges=_merges(metadata, vocabulary)))
    if normaliser is not None:
        encoder.normalizer = normaliser
    encoder.pre_tokenizer = words
    encoder.decoder = decoders.ByteLevel()
    encoder.add_special_tokens(
        [_added(token, kinds[index]) for token, index in vocabulary.items() if kinds[index] == _CONTROL]
    )
    encoder.add_tokens(
        [_added(token, kinds[index]) for token, index in vocabulary.items() if kinds[index] == _USER_DEFINED]
    )
    return encoder


def tokenizer_settings(metadata: Metadata) -> dict[str, Any]:
    """Return ``tokenizer_config.json``.

    Raises
    ------
    SourceError
        If a token's id is not in the vocabulary.
    """
    tokens = metadata.texts("tokenizer.ggml.tokens")
    roles = {f"{role}_token": tokens[_id(metadata, key)] for role, key in _ROLES.items() if key in metadata}
    length = metadata.integer(metadata.own("context_length"))
    return {"tokenizer_class": "TokenizersBackend", "model_max_length": length, **roles}


def role_ids(metadata: Metadata) -> dict[str, int | None]:
    """Return the ids of the special tokens that ``config.json`` names; None: the file has none.

    Raises
    ------
    SourceError
        If an id is not in the vocabulary.
    """
    named = {role: key for role, key in _ROLES.items() if role != "unk"}
    return {f"{role}_token_id": _id(metadata, key) if key in metadata else None for role, key in named.items()}


def _id(metadata: Metadata, key: str) -> int:
    index, count = metadata.integer(key, least=0), len(metadata.texts("tokenizer.ggml.tokens"))
    if index >= count:
        raise metadata.refusal(key, f"an id below {count}, the number of tokens")
    return index


def _text_rules(metadata: Metadata) -> tuple[Normalizer | None, PreTokenizer]:
    """Return normaliser and pre-tokenizer of the family that the file names."""
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    match metadata.text("tokenizer.ggml.pre"):
        case "gpt-2":
            return None, gpt2
        case "smollm":
            return None, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
        case "qwen2":
            split = pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated")
            to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            return normalizers.NFC(), pre_tokenizers.Sequence([split, to_bytes])
        case _:
            raise metadata.refusal("tokenizer.ggml.pre", "gpt-2, qwen2 or smollm")


def _kinds(metadata: Metadata) -> list[int]:
    """Return the type of every token."""
    key, tokens = "tokenizer.ggml.token_type", metadata.texts("tokenizer.ggml.tokens")
    kinds = metadata.integers(key)
    if len(kinds) != len(tokens):
        raise SourceError(
            f"{metadata.name}: {key} has {len(kinds)} values, expected one for each of {len(tokens)} tokens"
        )
    unknown = sorted(set(kinds) - {_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED})
    if unknown:
        raise SourceError(
            f"{metadata.name}: {key} = {unknown[0]} for {tokens[kinds.index(unknown[0])]!r}, "
            "expected 1 (normal), 3 (control), 4 (user-defined) or 5 (unused)"
        )
    if len(set(tokens)) < len(tokens):
        raise SourceError(f"{metadata.name}: tokenizer.ggml.tokens has a token twice, expected each once")
    return kinds


def _merges(metadata: Metadata, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return the merges; the two parts of each, and what they make, are tokens."""
    merges = []
    for merge in metadata.texts("tokenizer.ggml.merges"):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise SourceError(
                f"{metadata.name}: tokenizer.ggml.merges has {merge!r}, expected two tokens with a space between that "
                "together are a token"
            )
        merges.append((left, right))
    return merges


def _added(token: str, kind: int) -> AddedToken:
    return AddedToken(token, normalized=False, special=kind == _CONTROL)
