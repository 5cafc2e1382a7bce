"""Make the report of the whole grid: tables, figures, and one page."""

from importlib.metadata import version
from itertools import product
from typing import Any

from prunelib import workflow
from prunelib.params import Params
from prunelib.reporting import CellReport, Report, as_line, write_report
from prunelib.results import BOS_SUFFIX, Cell, read_cell, read_layers, read_timing


def report(params: Params) -> None:
    """Write the report of the cells of the grid; the files of other cells are not looked at.

    Methods and origins are read from params.yaml without being the stage's params, so that entries outside the grid do
    not rerun it. Other methods change results (a time at least); another attribution alone shows in the next report.
    """
    grid = params.grid
    dense = [CellReport(read_cell(workflow.result_file(Cell(model=model)))) for model in grid.models]
    names = product(grid.models, grid.patterns, grid.warmstarts, grid.refiners)
    pruned = [_read(Cell(model=m, pattern=p, warmstart=w, refiner=r)) for m, p, w, r in names]
    names_of_texts = [name for text in grid.texts for name in (text, f"{text}{BOS_SUFFIX}")]
    made = Report(
        cells=dense + pruned,
        texts=[name for name in names_of_texts if any(name in cell.result.perplexity for cell in dense)],
        tasks=params.evaluation.tasks.names,
        labels={name: params.patterns[name].label for name in grid.patterns},
        settings=_settings(params),
        provenance={**_origins(params), "Command": "dvc repro", "Written by": f"prunelib {version('prunelib')}"},
    )
    write_report(made, workflow.REPORTS)


def _read(cell: Cell) -> CellReport:
    result, layers = read_cell(workflow.result_file(cell)), read_layers(workflow.layers_file(cell))
    return CellReport(result, layers, read_timing(workflow.timing_file(cell)))


def _settings(params: Params) -> dict[str, Any]:
    """The sections that decided the results, with the entries that the grid names."""
    shown = params.model_dump(mode="json", include={"calibration", "evaluation"})
    for section in ("patterns", "warmstarts", "refiners"):
        entries = getattr(params, section)
        shown[section] = {name: entries[name].model_dump(mode="json") for name in getattr(params.grid, section)}
    return shown


def _origins(params: Params) -> dict[str, str]:
    """Where the models and texts come from, by heading."""
    models = {f"Model {name}": params.models[name].origin() for name in params.grid.models}
    texts = {f"Text {name}": params.texts[name].origin() for name in params.grid.texts}
    return {heading: as_line(origin) for heading, origin in {**models, **texts}.items()}


if __name__ == "__main__":
    workflow.run(report)
