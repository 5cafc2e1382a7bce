"""params.yaml as frozen, validated settings: the whole file is checked before any stage starts."""

from collections.abc import Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator
from ruamel.yaml import YAML

from prunelib import refiners, warmstarts
from prunelib.calibration.settings import CalibrationSettings
from prunelib.cell import Cell
from prunelib.errors import ParamsError
from prunelib.evaluation.local_tasks import TASK_NAMES
from prunelib.evaluation.perplexity import PerplexitySettings
from prunelib.evaluation.samples import SamplesSettings
from prunelib.evaluation.zeroshot import TasksSettings
from prunelib.masks.patterns import AnyPattern
from prunelib.methods import registry
from prunelib.pruning.chains import AnyRefiner, layer_steps, needs_held_out
from prunelib.pruning.warmstart import AnyWarmStart
from prunelib.settings import Seed, Settings, among
from prunelib.sources import ModelSource, TaskSource, TextSource

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]


def _with_method(entries: Any) -> Any:
    """Add the missing ``method`` keys: ``chain`` for an entry with a ``chain``, else the entry's name."""
    if not isinstance(entries, Mapping):
        return entries
    return {
        name: {"method": "chain" if "chain" in entry else name, **entry} if isinstance(entry, Mapping) else entry
        for name, entry in entries.items()
    }


if TYPE_CHECKING:
    from prunelib.methods.contract import Method


class Grid(Settings):
    """The cells to run: the product of models, calibration seeds, patterns, warm starts and refiners.

    Attributes
    ----------
    models, patterns, warmstarts, refiners
        Names of entries in the sections of the same names.
    seeds
        Seeds of the draw of calibration windows; with several, reports show mean and spread.
    texts
        Names of the texts that are fetched, and that perplexity is measured on.
    """

    models: Names
    seeds: Seeds
    texts: Names
    patterns: Names
    warmstarts: Names
    refiners: Names

    def cells(self) -> list[Cell]:
        """Return the cells of the dense models, then every combination."""
        axes = (self.models, self.seeds, self.patterns, self.warmstarts, self.refiners)
        names = ("model", "seed", "pattern", "warmstart", "refiner")
        dense = [Cell(model=model) for model in self.models]
        return dense + [Cell(**dict(zip(names, values, strict=True))) for values in product(*axes)]


class GridChange(Settings):
    """A grid, given as its differences from the section ``grid``."""

    models: Names | None = None
    seeds: Seeds | None = None
    texts: Names | None = None
    patterns: Names | None = None
    warmstarts: Names | None = None
    refiners: Names | None = None


class EvaluationSettings(Settings):
    """How every pruned model and the dense model are evaluated."""

    perplexity: PerplexitySettings
    tasks: TasksSettings
    samples: SamplesSettings = SamplesSettings()


Labels = dict[Name, Annotated[str, StringConstraints(min_length=1, max_length=80)]]


class LabelSettings(Settings):
    """How the report calls what it shows; a name without a label is shown as it is, a pattern in its text form.

    Attributes
    ----------
    models, texts, tasks, patterns, warmstarts, refiners
        Label by name.
    """

    models: Labels = Field(default_factory=dict)
    texts: Labels = Field(default_factory=dict)
    tasks: Labels = Field(default_factory=dict)
    patterns: Labels = Field(default_factory=dict)
    warmstarts: Labels = Field(default_factory=dict)
    refiners: Labels = Field(default_factory=dict)


_FIGURES = "figures"
REPLACED = ("tasks", "calibration", "evaluation")
"""Sections of params.yaml that a comparison may replace."""


class Comparison(Settings):
    """Several grids in one report, where a single product of lists does not suffice.

    Attributes
    ----------
    grids
        Each as its differences from the section ``grid``.
    tasks, calibration, evaluation
        Replacements for the sections of the same names; None: unchanged.
    """

    grids: Annotated[tuple[GridChange, ...], Field(min_length=1)]
    tasks: TaskSource | None = None
    calibration: CalibrationSettings | None = None
    evaluation: EvaluationSettings | None = None


class Params(Settings):
    """The whole of params.yaml."""

    grid: Grid
    models: dict[Name, ModelSource]
    texts: dict[Name, TextSource]
    tasks: TaskSource
    calibration: CalibrationSettings
    patterns: dict[Name, AnyPattern]
    warmstarts: Annotated[dict[Name, AnyWarmStart], BeforeValidator(_with_method)]
    refiners: Annotated[dict[Name, AnyRefiner], BeforeValidator(_with_method)]
    evaluation: EvaluationSettings
    labels: LabelSettings = LabelSettings()
    comparisons: dict[Name, Comparison] = Field(default_factory=dict)

    def compared(self, comparison: str) -> list["Params"]:
        """Return one copy of these params per grid of a comparison, with the comparison's replaced sections."""
        chosen = self.comparisons[comparison]
        sections = {name: getattr(chosen, name) or getattr(self, name) for name in REPLACED}
        own = {**dict(self), **sections, "comparisons": {}}
        changes = [change.model_dump(exclude_none=True) for change in chosen.grids]
        return [Params.model_validate({**own, "grid": {**self.grid.model_dump(), **change}}) for change in changes]

    @model_validator(mode="after")
    def _names_are_defined(self) -> "Params":
        for section in Grid.model_fields:
            names = getattr(self.grid, section)
            if section != "seeds":
                for name in names:
                    known_name(f"grid.{section}", name, getattr(self, section))
                for name in getattr(self.labels, section):
                    known_name(f"labels.{section}", name, getattr(self, section))
            if len(set(names)) < len(names):
                raise ValueError(f"grid.{section}: duplicate name in {list(names)}")
        known_name("calibration.text", self.calibration.text, self.grid.texts)
        if self.tasks.names is not None:
            for name in self.tasks.names:
                known_name("tasks", name, TASK_NAMES)
            for name in self.evaluation.tasks.names:
                known_name("evaluation.tasks.names", name, self.tasks.names)
        return self

    @model_validator(mode="after")
    def _combinations_are_supported(self) -> "Params":
        chosen: list[tuple[str, Method[Any]]] = [
            (name, registry.warmstart(warmstarts, self.warmstarts[name])) for name in self.grid.warmstarts
        ]
        for name in self.grid.refiners:
            chosen += [(name, registry.refiner(refiners, step)) for step in layer_steps(self.refiners[name])]
        for name, (used, method) in product(self.grid.patterns, chosen):
            pattern = self.patterns[name]
            if not method.supports(pattern):
                raise ValueError(f"grid: {used} does not support the pattern {name} ({pattern.kind}): {method.limits}")
        return self

    @model_validator(mode="after")
    def _allocations_are_known_beforehand(self) -> "Params":
        for name in self.grid.patterns:
            measured = self.patterns[name].measured_allocation
            if measured and not self.calibration.inputs.shared:
                raise ValueError(
                    f"patterns.{name}: {measured.title} needs the inputs of all blocks before any is pruned, expected "
                    f"calibration.inputs = dense, found {self.calibration.inputs}"
                )
        return self

    @model_validator(mode="after")
    def _held_out_tokens_are_there(self) -> "Params":
        for name in self.grid.refiners:
            if needs_held_out(self.refiners[name]) and not self.calibration.held_out_samples:
                raise ValueError(
                    f"refiners.{name}: early_stopping_interval needs held-out calibration tokens, but "
                    f"calibration.held_out_samples = 0"
                )
        return self

    @model_validator(mode="after")
    def _comparisons_are_valid(self) -> "Params":
        for name in self.comparisons:
            if name == _FIGURES:
                raise ValueError(f"comparisons.{name}: a folder of the report has this name; choose another")
            try:
                self.compared(name)
            except (ParamsError, ValidationError) as error:
                raise ParamsError(f"comparisons.{name}: {_first_fault(error)}") from None
        return self


def spanning(runs: Sequence[Params]) -> Params:
    """Return the first of these params, with a grid that has the names of all their grids."""
    grids = [run.grid for run in runs]
    axes = {axis: tuple(dict.fromkeys(chain(*(getattr(grid, axis) for grid in grids)))) for axis in Grid.model_fields}
    return runs[0].model_copy(update={"grid": Grid(**axes)})


def known_name(key: str, name: str, known: Any) -> str:
    """Return ``name`` if it is among ``known``.

    Raises
    ------
    ParamsError
        If it is not; the message gives the key, the name, the known names and the closest of them.
    """
    if name in known:
        return name
    raise ParamsError(f"{key}: unknown name {name!r}, expected one of {among(name, known)}")


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate params.yaml.

    Raises
    ------
    ParamsError
        If the file is missing or invalid: one line with the file, the key, the value found and the value expected.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the folder that contains it") from None
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # ruamel raises more than its own: for dates, numbers and depths that cannot be
        raise ParamsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, Mapping):
        found = "empty" if raw is None else "no mapping"
        raise ParamsError(f"{path}: {found}, expected the sections {', '.join(Params.model_fields)}")
    return _validated(raw, path)


def _validated(raw: Any, path: Path) -> Params:
    try:
        return Params.model_validate(raw)
    except (ParamsError, ValidationError) as error:
        raise ParamsError(f"{path}: {_first_fault(error)}") from None


def _first_fault(error: ParamsError | ValidationError) -> str:
    """Describe the first error: the key, the value found and the value expected."""
    if isinstance(error, ParamsError):
        return str(error)
    first, *others = error.errors()
    key = ".".join(str(part) for part in first["loc"])
    value = "" if isinstance(first["input"], Mapping) or first["type"] == "missing" else f" = {first['input']!r}"
    more = f" (and {len(others)} more)" if others else ""
    where = f"{key}{value}: " if key else ""
    return f"{where}{first['msg'].removeprefix('Value error, ')}{more}"
