"""The files that a model is made of, by name: no other file of its folder is copied, or part of its identity."""

from fnmatch import fnmatchcase
from pathlib import Path

from prunelib.errors import ArtifactError
from prunelib.runtime import store
from prunelib.runtime.hashing import cached

WEIGHTS = "model*.safetensors"
SINGLE_FILE = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"
CONFIGURATION = "config.json"

CARD = "README.md"
"""The model's card, read for the licence in it; an exported model has a card of its own."""

_CONFIGURATION = (
    CONFIGURATION,
    "generation_config.json",
    SHARD_INDEX,
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


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files that a model's tensors are read from: the single one, or those of the index.

    As transformers does, others that lie beside them are passed over, whatever their names.

    Raises
    ------
    ArtifactError
        If the folder has neither a single file nor an index, or the index is damaged.
    """
    if (folder / SINGLE_FILE).is_file():
        return [SINGLE_FILE]
    if (folder / SHARD_INDEX).is_file():
        return sorted(set(weight_map(folder).values()))
    lack = f"no {SINGLE_FILE} or {SHARD_INDEX}" if folder.is_dir() else "no such folder"
    raise ArtifactError(f"{folder}: {lack}, expected a Hugging Face model in safetensors")


def weight_map(folder: Path) -> dict[str, str]:
    """Return the file of each tensor by name, from the index of a model in several files.

    Raises
    ------
    ArtifactError
        If the index is missing or damaged.
    """
    index = folder / SHARD_INDEX
    return cached(_files_in, index) if index.is_file() else _files_in(index)


def _files_in(index: Path) -> dict[str, str]:
    value = store.read_json(index)
    files = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ArtifactError(f"{index}: damaged, expected a weight_map of tensor names to files")
    return files
