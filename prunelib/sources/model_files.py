"""The files that a model is made of, by name: no other file of its folder is copied."""

from fnmatch import fnmatchcase

WEIGHTS = "model*.safetensors"

CARD = "README.md"
"""The model's card, read for the licence in it; an exported model has a card of its own."""

_CONFIGURATION = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
_TOKENIZER = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*.json",
    "vocab*.txt",
    "merges.txt",
    "bpe.codes",
    "normalizer.json",
    "emoji.json",
    "tekken.json",
    "tokenizer*.model",
    "spiece.model",
    "spm.model",
    "sentencepiece*.model",
    "*.tiktoken",
    "chat_template.json",
    "*.jinja",
)
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")

SMALL_FILES = (*_CONFIGURATION, *_TOKENIZER, *_LICENCES)
"""Globs of their names: configuration, tokenizer, chat templates and licence."""


def is_licence(name: str) -> bool:
    """Return whether a file contains a licence, by its name."""
    return any(fnmatchcase(name.upper(), glob) for glob in _LICENCES[:2])


def is_small_file(name: str) -> bool:
    """Return whether a file is part of a model, by its name; weights and the card are not among them."""
    return any(fnmatchcase(name, glob) for glob in SMALL_FILES) or any(
        fnmatchcase(name.upper(), glob) for glob in _LICENCES
    )
