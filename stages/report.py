"""Make the report of the whole grid: tables, figures, and one page."""

from importlib.metadata import version
from itertools import product
from typing import Any

from prunelib import workflow
from prunelib.params import Params
from prunelib.reporting import CellReport, Report, write_report
from prunelib.results import Cell, read_cell, read_layers, read_timing

_SHOWN = {"grid", "calibration", "patterns", "warmstarts", "refiners", "evaluation"}


def report(params: Params) -> None:
    """Write the report of the cells of the grid; the files of other cells are not looked at."""
    grid = params.grid
    dense = [CellReport(read_cell(workflow.result_file(Cell(model=model)))) for model in grid.models]
    names = product(grid.models, grid.patterns, grid.warmstarts, grid.refiners)
    cells = [Cell(model=m, pattern=p, warmstart=w, refiner=r) for m, p, w, r in names]
    pruned = [
        CellReport(
            read_cell(workflow.result_file(cell)),
            read_layers(workflow.layers_file(cell)),
            read_timing(workflow.timing_file(cell)),
        )
        for cell in cells
    ]
    made = Report(
        cells=dense + pruned,
        texts=grid.texts,
        tasks=params.evaluation.tasks.names,
        labels={name: params.patterns[name].label for name in grid.patterns},
        settings=params.model_dump(mode="json", include=_SHOWN),
        provenance={**_origins(params), "Command": "dvc repro", "Written by": f"prunelib {version('prunelib')}"},
    )
    write_report(made, workflow.REPORTS)


def _origins(params: Params) -> dict[str, str]:
    named = {f"Model {name}": params.models[name] for name in params.grid.models}
    named |= {f"Text {name}": params.texts[name] for name in params.grid.texts}
    return {heading: ", ".join(_plain(source.origin())) for heading, source in named.items()}


def _plain(origin: dict[str, Any]) -> list[str]:
    return [f"{key} {value}" for key, value in origin.items() if isinstance(value, str)]


if __name__ == "__main__":
    workflow.run(report)
