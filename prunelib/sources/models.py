"""Models from a GGUF file in wheels, from the hub or from a folder, as a standard Hugging Face folder."""

import math
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from safetensors import SafetensorError, safe_open

from prunelib.errors import ArtifactError, SourceError
from prunelib.runtime import store
from prunelib.sources import hub, local
from prunelib.sources.joined import Wheels, join_members, require_disk, scratch_size
from prunelib.sources.provenance import Source, seal
from prunelib.sources.wheels import Wheel, read_member

_WEIGHTS = "model*.safetensors"
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")
_FILES = (_WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", *_LICENCES)
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
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    allow_uncovered: bool = False
    bos_per_window: bool = False

    def origin(self) -> dict[str, Any]:
        """Return the record of :meth:`Source.origin` without the settings of this class, which only affect use."""
        return {name: value for name, value in super().origin().items() if name not in _Model.model_fields}


class WheelModel(Wheel, _Model):
    """A GGUF file in a wheel, at path ``member``."""

    member: Annotated[str, Field(pattern=r"\.gguf$")]


class WheelsModel(Wheels, _Model):
    """A GGUF file in parts, one a wheel.

    Attributes
    ----------
    parameters
        How many the model has, of four bytes each after conversion.
    embedding
        The tensor with the embedding. ``output.weight``, the head's, is for a tied model whose file holds the matrix
        twice; the other copy is not used.
    """

    parameters: Annotated[int, Field(ge=1)]
    embedding: Literal["token_embd.weight", "output.weight"] = "token_embd.weight"


class HubModel(hub.Repository, _Model):
    """A model of the hub."""


class LocalModel(_Model):
    """A local Hugging Face folder."""

    source: Literal["local"] = "local"
    path: Path

    def origin(self) -> dict[str, Any]:
        """Return the record of :meth:`Source.origin`, with only the folder's name as ``path``."""
        return {**super().origin(), "path": self.path.name}


ModelSource = Annotated[WheelModel | WheelsModel | HubModel | LocalModel, Field(discriminator="source")]


def fetch_model(settings: WheelModel | WheelsModel | HubModel | LocalModel, folder: Path) -> None:
    """Fill an empty folder with a model: safetensors, configuration, tokenizer, provenance; no pickles, no code.

    Raises
    ------
    SourceError
        If the model cannot be fetched, or is incomplete.
    ArtifactError
        If a file could not be written.
    """
    match settings:
        case WheelModel():
            _convert_member(settings, folder)
        case WheelsModel():
            _convert_parts(settings, folder)
        case HubModel():
            local.copy_files(hub.snapshot(settings, _FILES), _FILES, folder)
        case LocalModel():
            local.copy_files(settings.path, _FILES, folder)
    _check_complete(folder, _name(settings))
    seal(folder, "model", settings.origin())


def _convert_member(settings: WheelModel, folder: Path) -> None:
    from prunelib.sources import gguf  # noqa: PLC0415 - needed for wheels only

    content = read_member(settings, settings.member)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / Path(settings.member).name
        path.write_bytes(content)
        gguf.convert(path, folder)


def _convert_parts(settings: WheelsModel, folder: Path) -> None:
    """Join the parts, convert the whole, and check it, in a folder within ``folder``, so that all is on one disk."""
    from prunelib.sources import gguf  # noqa: PLC0415 - needed for wheels only

    require_disk(folder, scratch_size(settings) + 4 * settings.parameters, settings.name)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "model.gguf"
        join_members(settings, path)
        converted = Path(scratch) / "converted"
        converted.mkdir()
        gguf.convert(path, converted, settings.embedding)
        found = _parameters(converted / "model.safetensors")
        if found != settings.parameters:
            raise SourceError(f"{settings.name}: it has {found} parameters, params.yaml expects {settings.parameters}")
        for file in converted.iterdir():
            file.rename(folder / file.name)


def _parameters(path: Path) -> int:
    with safe_open(path, framework="numpy") as stream:
        return sum(math.prod(stream.get_slice(name).get_shape()) for name in stream.keys())  # noqa: SIM118 - no mapping


def _name(settings: WheelModel | WheelsModel | HubModel | LocalModel) -> str:
    match settings:
        case WheelModel():
            return settings.requirement
        case WheelsModel():
            return settings.name
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
