"""Write the report of what is there: of the cells that are finished, or of a report's own tables."""

from prunelib.cell import Cell
from prunelib.errors import SourceError
from prunelib.params import Params, known_name, load_params
from prunelib.reporting import PAGE, Report, write_report
from prunelib.reporting.collect import collect_compared, collect_finished, compared_settings, reread
from prunelib.reporting.finished import FinishedCells
from prunelib.runtime.progress import note
from prunelib.workflow import paths


def report(comparison: str | None = None) -> None:
    """Write the report of the grid, or of a comparison, without running anything.

    It is made from the records of the cells that are finished: those of the grid in results/, those of a comparison in
    reports/NAME/cells. Where there are none, it is made from the tables of the report itself.

    Raises
    ------
    PruneError
        If params.yaml is invalid or has no such comparison, there is no record and no table, or one is damaged.
    """
    params, folder = load_params(), paths.reports_folder(comparison)
    if comparison:
        known_name("comparison", comparison, params.comparisons)
    found, missing = _of_comparison(params, comparison) if comparison else collect_finished(params)
    if found and found.cells:
        for cell in missing:
            note(f"{cell.full_name}: not finished, left out")
    else:
        note(f"No records of cells here: figures from the tables in {folder}, names and settings from params.yaml")
        found = reread(params, comparison)
    write_report(found, folder)
    note(f"The report of {len(found.cells)} cells: {folder / PAGE}")


def _of_comparison(params: Params, comparison: str) -> tuple[Report | None, list[Cell]]:
    """Return the report of a comparison's finished cells, and the others; None without the files that decide them."""
    cells = FinishedCells(paths.cells_folder(comparison))
    try:
        wanted = compared_settings(params, comparison)
    except SourceError as error:
        note(f"{error}: without it, finished cells cannot be found; the report is drawn from its own tables")
        return None, []
    return collect_compared(params, comparison, cells.find({cell: settings for cell, (_, settings) in wanted.items()}))
