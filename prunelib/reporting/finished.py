"""The finished cells of a comparison, one file each under ``reports/NAME/cells``, which git holds.

A file has everything that a report shows of a cell, so that a comparison goes on, and is reported, in a new clone
without any artifact: the cell's figures, those of its layers (a column a line of the record), its time and memory, the
settings that decide it, and the identity of the code that made it. It is found by these settings, whatever its name
and the names in params.yaml.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prunelib.cell import Cell
from prunelib.cell_settings import CellSettings
from prunelib.errors import ArtifactError, ParamsError, first_line
from prunelib.params import Params
from prunelib.records import (
    BOS_SUFFIX,
    BlockResult,
    CellResult,
    LayerResult,
    PerplexityResult,
    Timing,
)
from prunelib.reporting.cells import CellReport
from prunelib.reporting.stage_records import read_stage_records
from prunelib.runtime import atomic, store
from prunelib.settings import Settings
from prunelib.stage_code import STAGES, code_of

_KIND, _LAYERS = "finished cell", "layers"
_STAGES = STAGES[:-1]  # the report makes no cell
_DENSE_STAGES = ("download", "evaluate")


class FinishedCell(Settings):
    """A cell of a comparison that has been evaluated.

    Attributes
    ----------
    settings
        What decided it, a :class:`CellSettings` of the version that made it.
    code
        The identity of the code of each stage that made it, :func:`prunelib.stage_code.code_of`.
    made_from
        The identities of the model, the tokens, the texts and the items, with the settings, as the stages record them;
        the kernels that refined it.
    result, layers, blocks, timing
        Its records; the dense model has only ``result``.
    """

    settings: dict[str, Any]
    code: dict[str, str]
    made_from: dict[str, Any]
    result: CellResult
    layers: tuple[LayerResult, ...] = ()
    blocks: tuple[BlockResult, ...] = ()
    timing: Timing | None = None

    @property
    def known(self) -> CellSettings | None:
        """Its settings as this version reads them, new keys at their defaults; None: it has no such settings now."""
        try:
            return CellSettings.model_validate(self.settings)
        except (ParamsError, ValidationError):
            return None

    @property
    def identity(self) -> str | None:
        """That of its settings as this version reads them, :meth:`CellSettings.identity`."""
        known = self.known
        return known.identity() if known else None

    @property
    def report(self) -> CellReport:
        """Its records for a report."""
        return CellReport(self.result, self.layers, self.timing)

    def named(self, cell: Cell, settings: CellSettings) -> "FinishedCell":
        """Return it with today's names of the cell and of the texts, which are those of equal ``settings``."""
        known = self.known
        if known is None or (self.result.cell == cell and known.texts.keys() == settings.texts.keys()):
            return self
        before = {content: name for name, content in known.text_hashes().items()}
        perplexity: dict[str, PerplexityResult] = {}
        for name, content in settings.text_hashes().items():
            for suffix in ("", BOS_SUFFIX):
                if measured := self.result.perplexity.get(f"{before[content]}{suffix}"):
                    perplexity[f"{name}{suffix}"] = measured
        result = self.result.model_copy(update={"cell": cell, "perplexity": perplexity})
        return self.model_copy(update={"settings": settings.recorded(), "result": result})


class FinishedCells:
    """The finished cells of a comparison.

    Parameters
    ----------
    folder
        Where their files are, or will be.

    Raises
    ------
    ArtifactError
        If a file is damaged or changed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found = {path: _read(path) for path in sorted(folder.glob("*.json"))}

    def find(self, wanted: Mapping[Cell, CellSettings]) -> dict[Cell, FinishedCell]:
        """Return those of the ``wanted`` cells that are finished with these settings, with today's names."""
        known = {path: finished.identity for path, finished in self._found.items()}
        paths = {identity: path for path, identity in known.items()}
        found = {}
        for cell, settings in wanted.items():
            identity, own = settings.identity(), self._path(cell)
            path = own if known.get(own) == identity else paths.get(identity)
            if path:
                found[cell] = self._found[path].named(cell, settings)
        return found

    def changes(self, cell: Cell, settings: CellSettings) -> list[str]:
        """Return what differs between a cell that is to be made and the one that is there under its name."""
        there = self._found.get(self._path(cell))
        if there is None:
            return []
        known, now = there.known, settings.parts()
        before = known.parts() if known else {}
        return [name for name in now if now[name] != before.get(name)]

    def move_to_current_names(self, found: Mapping[Cell, FinishedCell]) -> None:
        """Write those under the cells' names of today that had others; files of the former names are removed.

        Raises
        ------
        ArtifactError
            If a file could not be written.
        """
        for cell, finished in found.items():
            if self._found.get(self._path(cell)) is not finished:
                self.add(finished)
        kept, identities = {self._path(cell) for cell in found}, {finished.identity for finished in found.values()}
        for path, finished in list(self._found.items()):
            if path not in kept and finished.identity in identities:
                atomic.remove(path)
                del self._found[path]

    def add(self, finished: FinishedCell) -> None:
        """Write a finished cell, in place of one of its name.

        Raises
        ------
        ArtifactError
            If the file could not be written.
        """
        path = self._path(finished.result.cell)
        value = finished.model_dump(mode="json")
        store.write_compact_record(path, _KIND, {**value, _LAYERS: _columns(value[_LAYERS])})
        self._found[path] = finished

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.key}.json"


def finished_in(
    project: Path, params: Params, cell: Cell, settings: CellSettings, code: Mapping[str, str]
) -> FinishedCell:
    """Return a cell from the records that the stages wrote in the folder of a project.

    Raises
    ------
    ArtifactError
        If a record is missing, damaged or not of ``params``.
    """
    records = read_stage_records(params, cell, project)
    return FinishedCell(
        settings=settings.recorded(),
        code={stage: code[stage] for stage in (_STAGES if cell.pattern else _DENSE_STAGES)},
        made_from=dict(records.made_from),
        result=records.result,
        layers=tuple(records.layers),
        blocks=tuple(records.blocks),
        timing=records.timing,
    )


def code_of_stages(project: Path) -> dict[str, str]:
    """Return the identity of the code of each stage, as it is in the folder of a project."""
    return {stage: code_of(stage, project) for stage in _STAGES}


def _read(path: Path) -> FinishedCell:
    try:
        value = store.read_record(path, _KIND)
        return FinishedCell.model_validate({**value, _LAYERS: _rows(value[_LAYERS])})
    except ArtifactError as error:
        fault = str(error).partition(";")[0]
    except (KeyError, TypeError, ValueError) as error:
        fault = f"{path}: not a finished cell of this version ({first_line(error)})"
    raise ArtifactError(f"{fault}; take it back from git, or remove it: `prunelib compare` makes the cell again")


def _columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return records that have the same keys as one list a key, without keys whose values are all None."""
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    return {key: values for key, values in columns.items() if any(value is not None for value in values)}


def _rows(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return the records of :func:`_columns`; raise ValueError for columns of different lengths."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
