"""Whether all files that a model needs are in a folder, and whole."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open

from prunelib.errors import ArtifactError, SourceError
from prunelib.model.block_counts import check_block_counts
from prunelib.runtime import store
from prunelib.sources.model_files import WEIGHTS

_INDEX = "model.safetensors.index.json"
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
        SourceError if the source cannot be asked, when what is missing may well be there.

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
    check_block_counts(folder / "config.json", f"{name}: config.json", tensors)


def _lack(folder: Path, name: str) -> str:
    """Describe the first thing that is missing; empty: nothing is."""
    if not any(folder.glob(WEIGHTS)):
        return f"no {WEIGHTS} in it"
    if not (folder / "config.json").is_file():
        return "no config.json in it"
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        return f"no tokenizer in it, expected one of {', '.join(_TOKENIZERS)}"
    shards = _shards(folder / _INDEX, name) if (folder / _INDEX).is_file() else set()
    missing = sorted(shards - {path.name for path in folder.glob(WEIGHTS)})
    return f"{_INDEX} names files that are not there, or no {WEIGHTS}: {', '.join(missing)}" if missing else ""


def _shards(index: Path, name: str) -> set[str]:
    try:
        return {str(shard) for shard in store.read_json(index)["weight_map"].values()}
    except ArtifactError as error:
        raise SourceError(f"{name}: {str(error).removeprefix(f'{index.parent}/')}") from None
    except (KeyError, TypeError, AttributeError):
        raise SourceError(f"{name}: {index.name} is damaged, expected a weight_map of tensor names to files") from None


def _tensors(path: Path, name: str) -> int:
    """Return the number of tensors in a weight file, which must be whole."""
    try:
        with safe_open(path, framework="numpy") as stream:
            return len(stream.keys())
    except SafetensorError as error:
        raise SourceError(f"{name}: {path.name} is truncated or damaged ({error})") from None
