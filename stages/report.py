"""Write the report of the whole grid: tables, figures, and one page. Records of cells outside the grid are removed.

Methods and origins are read from params.yaml but are not params of this stage, so entries outside the grid do not
rerun it. A changed method changes results and so reruns it; a changed attribution alone appears in the next report.
"""

from prunelib.runtime.console import one_line

with one_line():  # an interrupt of the imports, which take seconds
    from prunelib.params import Params
    from prunelib.reporting import write_report
    from prunelib.reporting.collect import collect
    from prunelib.workflow import own_folders, paths, stage


def report(params: Params) -> None:
    """Write the report of the cells of the grid."""
    write_report(collect(params), paths.reports_folder())
    own_folders.remove_other_results(params)


if __name__ == "__main__":
    stage.run(report)
