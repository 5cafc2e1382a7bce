"""The report's data, read from the stages' outputs: the cells of the grid, and their labels from params.yaml."""

from typing import Any

import prunelib
from prunelib import workflow
from prunelib.cell import Cell
from prunelib.params import Params, spanning
from prunelib.reporting.records import CellReport, Report, as_line
from prunelib.results import BOS_SUFFIX, read_cell, read_layers, read_timing


def collect(params: Params, comparison: str | None = None) -> Report:
    """Read the cells of the grid, or of all grids of a comparison, and no others.

    Raises
    ------
    ArtifactError
        If the records of a cell are missing or damaged.
    """
    runs = params.compared(comparison) if comparison else [params]
    whole = spanning(runs)
    cells = [_read(whole, cell) for cell in dict.fromkeys(cell for run in runs for cell in run.grid.cells())]
    texts = [name for text in whole.grid.texts for name in (text, f"{text}{BOS_SUFFIX}")]
    command = f"prunelib compare {comparison}" if comparison else "dvc repro"
    return Report(
        cells=sorted(cells, key=lambda cell: (whole.grid.models.index(cell.cell.model), not cell.dense)),
        texts=[text for text in texts if any(text in cell.result.perplexity for cell in cells)],
        tasks=whole.evaluation.tasks.names,
        labels={"patterns": {name: params.patterns[name].label for name in whole.grid.patterns}},
        settings=_settings(whole),
        provenance={**_origins(whole), "Command": command, "Written by": f"prunelib {prunelib.__version__}"},
    )


def _read(params: Params, cell: Cell) -> CellReport:
    """Read the records of a cell, which must be of the settings in params.yaml; the artifacts may be elsewhere."""
    methods = workflow.methods(params, cell)
    expected = {**methods, **workflow.evaluation_of(params, cell.model)}
    result, made_from = read_cell(workflow.result_file(cell), expected)
    if cell.pattern is None:
        return CellReport(result)
    layers, origin = workflow.layers_file(cell), {key: made_from.get(key) for key in ("model", "tokens", "calibration")}
    records = read_layers(layers, {**methods, **origin})
    return CellReport(result, records, read_timing(workflow.timing_file(cell), layers))


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
