"""Make the report of the whole grid: tables, figures, and one page."""

from importlib.metadata import version
from typing import Any

from prunelib import workflow
from prunelib.cell import Cell
from prunelib.params import Params, spanning
from prunelib.reporting import CellReport, Report, as_line, write_report
from prunelib.results import BOS_SUFFIX, read_cell, read_layers, read_timing


def report(params: Params, comparison: str | None = None) -> None:
    """Write the report of the cells of the grid, or of all grids of a comparison; no other cell is looked at.

    Methods and origins are read from params.yaml without being the stage's params, so that entries outside the grid do
    not rerun it. Other methods change results (a time at least); another attribution alone shows in the next report.
    """
    runs = params.compared(comparison) if comparison else [params]
    whole = spanning(runs)
    cells = [_read(cell) for cell in dict.fromkeys(cell for run in runs for cell in run.grid.cells())]
    texts = [name for text in whole.grid.texts for name in (text, f"{text}{BOS_SUFFIX}")]
    command = f"python -m prunelib.commands.compare --comparison {comparison}" if comparison else "dvc repro"
    made = Report(
        cells=sorted(cells, key=lambda cell: (whole.grid.models.index(cell.cell.model), not cell.dense)),
        texts=[text for text in texts if any(text in cell.result.perplexity for cell in cells)],
        tasks=whole.evaluation.tasks.names,
        labels={name: params.patterns[name].label for name in whole.grid.patterns},
        settings=_settings(whole),
        provenance={**_origins(whole), "Command": command, "Written by": f"prunelib {version('prunelib')}"},
    )
    write_report(made, workflow.REPORTS / comparison if comparison else workflow.REPORTS)


def _read(cell: Cell) -> CellReport:
    result = read_cell(workflow.result_file(cell))
    if cell.pattern is None:
        return CellReport(result)
    return CellReport(result, read_layers(workflow.layers_file(cell)), read_timing(workflow.timing_file(cell)))


def _settings(params: Params) -> dict[str, Any]:
    """The seeds and sections that decided the results, with the entries that the grid names."""
    shown = params.model_dump(mode="json", include={"calibration", "evaluation"})
    shown["calibration"]["seeds"] = list(params.grid.seeds)
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
