"""Everything in params.yaml that decides the figures of a cell; finished cells are found by it.

Values stand in place of names, and hashes of contents in place of local paths. Names, labels, attributions and entries
that a cell does not use decide nothing. Tasks that lm-eval fetches from the hub are not pinned: their versions are in
the records.
"""

import hashlib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from prunelib.calibration.settings import CalibrationSettings
from prunelib.cell import Cell
from prunelib.errors import SourceError
from prunelib.masks.patterns import AnyPattern
from prunelib.params import EvaluationSettings, Name, Params
from prunelib.pruning.chains import AnyRefiner
from prunelib.pruning.warmstart import AnyWarmStart
from prunelib.runtime import hashing
from prunelib.settings import Settings
from prunelib.sources import ModelSource, TaskSource, TextSource, local
from prunelib.sources.model_files import WEIGHTS, is_licence, is_small_file
from prunelib.sources.models import LocalModel
from prunelib.sources.tasks import LocalTasks, WheelTasks
from prunelib.sources.texts import LocalText
from prunelib.warmstarts.given import GivenMasks


class CellSettings(Settings):
    """The settings of a cell.

    Attributes
    ----------
    model
        Where the model comes from, and how it is run.
    texts
        What perplexity is measured on and windows are drawn from, by name.
    tasks
        Where the items come from of the tasks that are measured; None: none are.
    evaluation
        How it is evaluated.
    calibration, seed, pattern, warmstart, refiner
        How it is pruned; None for the dense model.
    """

    model: ModelSource
    texts: dict[Name, TextSource]
    tasks: TaskSource | None = None
    evaluation: EvaluationSettings
    calibration: CalibrationSettings | None = None
    seed: int | None = None
    pattern: AnyPattern | None = None
    warmstart: AnyWarmStart | None = None
    refiner: AnyRefiner | None = None

    def parts(self) -> dict[str, str]:
        """Return a hash of each attribute; that of ``texts`` and ``calibration`` is the same for other names."""
        value, texts = self.model_dump(mode="json"), self.text_hashes()
        value["texts"] = sorted(texts.values())
        if self.calibration:
            value["calibration"]["text"] = texts[self.calibration.text]
        return {name: hashing.sha256_json(part) for name, part in value.items()}

    def identity(self) -> str:
        """Return a hash that is the same if and only if all :meth:`parts` are."""
        return hashing.sha256_json(self.parts())

    def recorded(self) -> dict[str, Any]:
        """Return the settings as JSON values that can be validated: given masks have a path, which says nothing."""
        value = self.model_dump(mode="json")
        if isinstance(self.warmstart, GivenMasks):
            value["warmstart"]["path"] = self.warmstart.sha256
        return value

    def text_hashes(self) -> dict[str, str]:
        """Return a hash of the settings of each text, by the text's name."""
        return {name: hashing.sha256_json(text.model_dump(mode="json")) for name, text in self.texts.items()}


def settings_of(params: Params, cell: Cell) -> CellSettings:
    """Return the settings of a cell of the grid of ``params``.

    Raises
    ------
    SourceError
        If a local file of its model, texts or tasks is missing: what is in it is part of the settings.
    """
    pruning: dict[str, Any] = {}
    if cell.pattern and cell.warmstart and cell.refiner:
        pruning = {
            "calibration": params.calibration,
            "seed": cell.seed,
            "pattern": params.patterns[cell.pattern],
            "warmstart": params.warmstarts[cell.warmstart],
            "refiner": params.refiners[cell.refiner],
        }
    return CellSettings(
        model=_pinned_model(params.models[cell.model]),
        texts={name: _pinned_text(params.texts[name]) for name in params.grid.texts},
        tasks=_pinned_tasks(params.tasks, params.evaluation.tasks.names),
        evaluation=params.evaluation,
        **pruning,
    )


def _pinned_model(source: ModelSource) -> ModelSource:
    """Return a model's source with the hash of its files for a local path, and without what decides no figure."""
    undecided = {"base_model": None, "license": None, "allow_uncovered": False}
    path = {"path": Path(_model_content(source.path))} if isinstance(source, LocalModel) else {}
    return source.model_copy(update={**undecided, **path})


def _pinned_text(source: TextSource) -> TextSource:
    """Return a text's source with the hash of its files for local globs, and without the attribution."""
    globs = {"members": (_text_content(source.members),)} if isinstance(source, LocalText) else {}
    return source.model_copy(update={"attribution": None, **globs})


def _pinned_tasks(source: TaskSource, names: Iterable[str]) -> TaskSource | None:
    """Return the source of the tasks of these names, with the hash of each local file for its path."""
    if not names:
        return None
    match source:
        case WheelTasks():
            return source.model_copy(update={"members": {name: source.members[name] for name in names}})
        case LocalTasks():
            hashed = {name: Path(f"{_hash_of(source.files[name])}{source.files[name].suffix}") for name in names}
            return source.model_copy(update={"files": hashed})
    return source


def _model_content(folder: Path) -> str:
    """Return a hash of the names and contents of a model's files, without its licences."""
    decisive = [
        name
        for name in local.file_names(folder)
        if fnmatchcase(name, WEIGHTS) or (is_small_file(name) and not is_licence(name))
    ]
    return hashing.sha256_json({name: _hash_of(folder / name) for name in decisive})


def _text_content(globs: Iterable[str]) -> str:
    """Return a hash of the contents of a text's files in the order of their paths, which decides what is held out."""
    return hashing.sha256_json([hashlib.sha256(content).hexdigest() for content in local.read_files(globs).values()])


def _hash_of(path: Path) -> str:
    try:
        return hashing.cached(hashing.sha256_file, path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
