"""Make the report of the whole grid: tables, figures, and one page."""

from importlib.metadata import version
from itertools import product

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
        provenance={"Command": "dvc repro", "Written by": f"prunelib {version('prunelib')}"},
    )
    write_report(made, workflow.REPORTS)


if __name__ == "__main__":
    workflow.run(report)
