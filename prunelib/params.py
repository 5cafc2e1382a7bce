"""params.yaml as frozen, validated settings: the whole file is checked before any stage does any work."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Union

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from prunelib import refiners, registry, warmstarts
from prunelib.errors import ParamsError
from prunelib.evaluation.local_tasks import STOCK_NAMES
from prunelib.evaluation.perplexity import PerplexitySettings
from prunelib.evaluation.zeroshot import TasksSettings
from prunelib.gram import CalibrationSettings
from prunelib.patterns import NOfM, PerRow
from prunelib.settings import Settings
from prunelib.sources import ModelSource, TaskSource, TextSource

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]


def _named_methods(package: ModuleType) -> Any:
    """A map from names to the settings of a package's methods; an entry without ``method`` has that of its name."""
    choices = tuple(module.Settings for module in registry.methods(package).values())
    entry = Annotated[Union[choices], Field(discriminator="method")]  # type: ignore[valid-type]  # noqa: UP007 - members known at run time
    return Annotated[dict[Name, entry], BeforeValidator(_with_method)]


def _with_method(entries: Any) -> Any:
    if not isinstance(entries, Mapping):
        return entries
    return {name: {"method": name, **entry} if isinstance(entry, Mapping) else entry for name, entry in entries.items()}


class Grid(Settings):
    """What runs: the product of models, patterns, warm starts and refiners; ``texts`` are fetched and evaluated on."""

    models: Names
    texts: Names
    patterns: Names
    warmstarts: Names
    refiners: Names


class EvaluationSettings(Settings):
    """How every mask and the dense model are measured."""

    perplexity: PerplexitySettings
    tasks: TasksSettings


class Params(Settings):
    """The whole of params.yaml."""

    grid: Grid
    models: dict[Name, ModelSource]
    texts: dict[Name, TextSource]
    tasks: TaskSource
    calibration: CalibrationSettings
    patterns: dict[Name, Annotated[PerRow | NOfM, Field(discriminator="kind")]]
    warmstarts: _named_methods(warmstarts)  # type: ignore[valid-type]
    refiners: _named_methods(refiners)  # type: ignore[valid-type]
    evaluation: EvaluationSettings

    @model_validator(mode="after")
    def _names_are_defined(self) -> "Params":
        for section in Grid.model_fields:
            names = getattr(self.grid, section)
            for name in names:
                known_name(f"grid.{section}", name, getattr(self, section))
            if len(set(names)) < len(names):
                raise ValueError(f"grid.{section}: a name stands twice in {list(names)}")
        known_name("calibration.text", self.calibration.text, self.grid.texts)
        if self.tasks.names is not None:
            for name in self.tasks.names:
                known_name("tasks", name, STOCK_NAMES)
            for name in self.evaluation.tasks.names:
                known_name("evaluation.tasks.names", name, self.tasks.names)
        return self


def known_name(key: str, name: str, known: Any) -> str:
    """Return ``name`` if it is among ``known``.

    Raises
    ------
    ParamsError
        Naming the key, the name, what it may be, and the nearest known name.
    """
    if name in known:
        return name
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ParamsError(f"{key}: unknown name {name!r}, expected one of {', '.join(known)}{hint}")


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate params.yaml.

    Raises
    ------
    ParamsError
        With one line: the file, the key, its value, and what would be right.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the folder that holds it") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return _validated(raw, path)


def _validated(raw: Any, path: Path) -> Params:
    try:
        return Params.model_validate(raw)
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    except ValidationError as error:
        first, *others = error.errors()
        key = ".".join(str(part) for part in first["loc"])
        value = "" if isinstance(first["input"], Mapping) or first["type"] == "missing" else f" = {first['input']!r}"
        more = f" (and {len(others)} more)" if others else ""
        raise ParamsError(f"{path}: {key}{value}: {first['msg'].removeprefix('Value error, ')}{more}") from None
