"""Write the report of what is there: of the finished cells of the grid, or of a report's own tables."""

from prunelib import workflow
from prunelib.params import known_name, load_params
from prunelib.reporting import PAGE, write_report
from prunelib.reporting.collect import collect_finished, reread
from prunelib.runtime.progress import note


def report(comparison: str | None = None) -> None:
    """Write the report of the grid, or of a comparison, without running anything.

    That of the grid is made from the records of the cells that have been evaluated. Where there are none, as in a new
    clone, and for a comparison, it is made from the tables of the report itself.

    Raises
    ------
    PruneError
        If params.yaml is invalid or has no such comparison, there is no record and no table, or one is damaged.
    """
    params, folder = load_params(), workflow.reports_folder(comparison)
    if comparison:
        known_name("comparison", comparison, params.comparisons)
    found, missing = (None, []) if comparison else collect_finished(params)
    if found and found.cells:
        for cell in missing:
            note(f"{cell.full_name}: not evaluated, left out")
    else:
        found = reread(params, comparison)
    write_report(found, folder)
    note(f"The report of {len(found.cells)} cells: {folder / PAGE}")
