"""The report's data, read from the records of the grid's or a comparison's cells, and their labels from params.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import prunelib
from prunelib.calibration.settings import ACCUMULATION
from prunelib.cell import Cell
from prunelib.cell_settings import CellSettings, settings_of
from prunelib.errors import ArtifactError
from prunelib.params import EvaluationSettings, Params, spanning
from prunelib.records import BOS_SUFFIX
from prunelib.report_tables import layer_results, results
from prunelib.reporting.cells import CellReport
from prunelib.reporting.finished import FinishedCell
from prunelib.reporting.flat import report_of
from prunelib.reporting.report import Record, Report, as_line
from prunelib.reporting.samples import SAMPLES, read_samples
from prunelib.reporting.stage_records import read_stage_records
from prunelib.workflow import paths

if TYPE_CHECKING:
    import pandas as pd


def collect(params: Params) -> Report:
    """Read the records of the cells of the grid, and no others.

    Raises
    ------
    ArtifactError
        If the records of a cell are missing or damaged.
    """
    whole, cells = _grid_of(params, None)
    return _report(params, whole, _read(whole, cells), None)


def collect_finished(params: Params) -> tuple[Report, list[Cell]]:
    """Read the records of the cells of the grid that have been evaluated, and name the others.

    Raises
    ------
    ArtifactError
        If the records of a cell are damaged or of other settings.
    """
    whole, cells = _grid_of(params, None)
    finished = [cell for cell in cells if paths.result_file(cell).is_file()]
    return _report(params, whole, _read(whole, finished), None), [cell for cell in cells if cell not in finished]


def _read(whole: Params, cells: Sequence[Cell]) -> list[CellReport]:
    """Read the records of cells, which must be of one model, and of one calibration for each seed."""
    records, origins = [read_stage_records(whole, cell) for cell in cells], dict[tuple[Any, ...], tuple[Cell, Any]]()
    accumulation = whole.calibration.model_dump(mode="json", include=set(ACCUMULATION))
    for cell, each in zip(cells, records, strict=True):
        of_model = {(cell.model, "model"): each.made_from.get("model")}
        of_seed = {(cell.model, cell.seed, key): each.made_from.get(key) for key in ("tokens", "calibration")}
        for key, value in (of_model | (of_seed if cell.pattern else {})).items():
            first, known = origins.setdefault(key, (cell, accumulation if key[-1] == "calibration" else value))
            if value != known:
                raise ArtifactError(
                    f"{paths.result_file(cell)}: its {key[-1]} is not that of {first.full_name} or of params.yaml, "
                    "expected one for all; rerun the stages"
                )
    return [each.report for each in records]


def compared_settings(params: Params, comparison: str) -> dict[Cell, tuple[Params, CellSettings]]:
    """Return, for each cell of a comparison, the params of its grid, and its settings.

    A cell of several grids that measure on different texts has those of the last.

    Raises
    ------
    SourceError
        If a local file of a model, text or task is missing.
    """
    runs = params.compared(comparison)
    grids = {cell: grid for grid in runs for cell in grid.grid.cells()}
    return {cell: (grid, settings_of(grid, cell)) for cell, grid in grids.items()}


def collect_compared(params: Params, comparison: str, found: Mapping[Cell, FinishedCell]) -> tuple[Report, list[Cell]]:
    """Return the report of the finished cells of a comparison, and name the others."""
    whole, cells = _grid_of(params, comparison)
    finished = [found[cell] for cell in cells if cell in found]
    report = _report(params, whole, [cell.report for cell in finished], comparison)
    code = {cell.result.cell.key: cell.code for cell in finished}
    return replace(report, code=code), [cell for cell in cells if cell not in found]


def reread(params: Params, comparison: str | None = None) -> Report:
    """Read a report from its own tables: where there are no records, as in a new clone.

    The settings and labels are those of params.yaml now.

    Raises
    ------
    ArtifactError
        If a table is missing or damaged, or there are no cells in it.
    """
    folder = paths.reports_folder(comparison)
    whole, _ = _grid_of(params, comparison)
    cells, layers = results(folder), folder / "layers.csv"
    if cells.empty:
        raise ArtifactError(f"{folder / 'results.csv'}: has no cells")
    texts = [text for text in _texts(whole) if f"perplexity_{text}" in cells]
    tasks = [task for task in whole.evaluation.tasks.names if f"acc_{task}" in cells]
    return Report(
        cells=_records(cells),
        layers=_records(layer_results(folder)) if layers.is_file() else [],
        texts=texts,
        tasks=tasks,
        measured=_to_be_measured(whole.evaluation, texts, tasks),
        samples=read_samples(folder / SAMPLES),
        **_presentation(params, whole, comparison),
    )


def _to_be_measured(evaluation: EvaluationSettings, texts: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """Return what texts and tasks are measured on by the settings: no table has the counts."""
    windows, limit = evaluation.perplexity, evaluation.tasks.limit
    of_text = f"at most {windows.tokens:,} tokens of held-out text in windows of {windows.length:,}"
    of_task = "all items" if limit is None else f"at most {limit:,} items"
    return {**dict.fromkeys(texts, of_text), **dict.fromkeys(tasks, of_task)}


def _records(frame: "pd.DataFrame") -> list[Record]:
    """Return the rows of a table, with None for a missing value."""
    rows: list[Record] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return rows


def _grid_of(params: Params, comparison: str | None) -> tuple[Params, list[Cell]]:
    """Return the params with a grid that has all names of the report, and the report's cells."""
    runs = params.compared(comparison) if comparison else [params]
    whole = spanning(runs)
    cells = dict.fromkeys(cell for run in runs for cell in run.grid.cells())
    return whole, sorted(cells, key=lambda cell: (whole.grid.models.index(cell.model), cell.pattern is not None))


def _texts(whole: Params) -> list[str]:
    return [name for text in whole.grid.texts for name in (text, f"{text}{BOS_SUFFIX}")]


def _report(params: Params, whole: Params, cells: Sequence[CellReport], comparison: str | None) -> Report:
    texts = [text for text in _texts(whole) if any(text in cell.result.perplexity for cell in cells)]
    shown = _presentation(params, whole, comparison)
    shared = whole.calibration.inputs.shared
    return report_of(cells, texts, whole.evaluation.tasks.names, shared_inputs=shared, **shown)


def _presentation(params: Params, whole: Params, comparison: str | None) -> dict[str, Any]:
    """Return the prompts, labels, settings and provenance of a report."""
    command = f"prunelib compare {comparison}" if comparison else "dvc repro"
    patterns = {name: params.patterns[name].label for name in whole.grid.patterns}
    labels = params.labels.model_dump()
    return {
        "prompts": whole.evaluation.samples.prompts,
        "labels": {**labels, "patterns": {**patterns, **labels["patterns"]}},
        "settings": _settings(whole),
        "provenance": {**_origins(whole), "Command": command, "Written by": f"prunelib {prunelib.__version__}"},
    }


def _settings(params: Params) -> dict[str, Any]:
    """Return the seeds and the sections that determine the results, with only the entries in the grid."""
    shown = params.model_dump(mode="json", include={"calibration", "evaluation"})
    shown["calibration"]["seeds"] = list(params.grid.seeds)
    for section in ("patterns", "warmstarts", "refiners"):
        entries = getattr(params, section)
        shown[section] = {name: entries[name].model_dump(mode="json") for name in getattr(params.grid, section)}
    return shown


def _origins(params: Params) -> dict[str, str]:
    """Return the origins of the models and texts, by heading."""
    models = {f"Model {name}": params.models[name].origin() for name in params.grid.models}
    texts = {f"Text {name}": params.texts[name].origin() for name in params.grid.texts}
    return {heading: as_line(origin) for heading, origin in {**models, **texts}.items()}
