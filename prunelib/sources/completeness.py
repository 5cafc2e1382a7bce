"""Whether all files that a model needs are in a folder, and whole."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open

from prunelib.errors import ArtifactError, SourceError
from prunelib.sources.block_counts import check_block_counts
from prunelib.sources.model_files import CONFIGURATION, SHARD_INDEX, WEIGHTS, weight_files, weight_map

_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt",
)  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check_complete(folder: Path, name: str, offered: Callable[[], list[str]]) -> None:
    """Check that a model folder has weights, configuration and tokenizer, and that every weight file is whole.

    More blocks than tensors are refused here, before anything reads the configuration for its tokenizer alone.

    Parameters
    ----------
    name
        The model in messages.
    offered
        Returns the names of all files at the model's source; called only if something is missing. It raises
        SourceError if the source cannot be reached.

    Raises
    ------
    SourceError
        If something is missing or damaged.
    ModelError
        If the configuration has more blocks than the files have tensors.
    """
    if lack := _lack(folder, name):
        pickles = [file for file in offered() if any(fnmatchcase(file, glob) for glob in _PICKLES)]
        converts = pickles and not any(folder.glob(WEIGHTS))
        advice = f"; pickled weights ({pickles[0]}) are never read, convert them to safetensors" if converts else ""
        raise SourceError(f"{name}: {lack}{advice}")
    tensors = sum(_tensors(path, name) for path in sorted(folder.glob(WEIGHTS)))
    check_block_counts(folder / CONFIGURATION, f"{name}: {CONFIGURATION}", tensors)


def _lack(folder: Path, name: str) -> str:
    """Describe the first thing that is missing; empty: nothing is."""
    if not any(folder.glob(WEIGHTS)):
        return f"no {WEIGHTS} in it"
    if not (folder / CONFIGURATION).is_file():
        return f"no {CONFIGURATION} in it"
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        return f"no tokenizer in it, expected one of {', '.join(_TOKENIZERS)}"
    missing = sorted(_shards(folder, name) - {path.name for path in folder.glob(WEIGHTS)})
    named = f"{SHARD_INDEX} names files that are not there, or no {WEIGHTS}"
    return f"{named}: {', '.join(missing)}" if missing else ""


def _shards(folder: Path, name: str) -> set[str]:
    """Return the files that the model is in; those of an index also where a single file is read instead."""
    try:
        indexed = weight_map(folder).values() if (folder / SHARD_INDEX).is_file() else ()
        return {*indexed, *weight_files(folder)}
    except ArtifactError as error:
        raise SourceError(f"{name}: {str(error).removeprefix(str(folder)).lstrip('/: ')}") from None


def _tensors(path: Path, name: str) -> int:
    """Return the number of tensors in a weight file, which must be whole."""
    try:
        with safe_open(path, framework="numpy") as stream:
            return len(stream.keys())
    except SafetensorError as error:
        raise SourceError(f"{name}: {path.name} is truncated or damaged ({error})") from None
