"""The report: tables for reading and for DVC, figures, and one self-contained page, from the records of evaluation."""

from pathlib import Path

from prunelib import store
from prunelib.reporting.figures import draw
from prunelib.reporting.page import html
from prunelib.reporting.records import CellReport, Report, as_line
from prunelib.reporting.tables import layers_csv, results_csv, results_markdown

__all__ = ["CellReport", "Report", "as_line", "render", "write_report"]


def render(report: Report) -> dict[str, str]:
    """The report's files by name, as text; the same report gives the same bytes.

    Returns
    -------
    dict[str, str]
        ``results.csv``, ``layers.csv``, ``results.md``, ``report.html``, and those of ``figures/perplexity.svg``,
        ``figures/error_reduction.svg`` and ``figures/swaps.svg`` that have something to show.
    """
    drawn = draw(report)
    return {
        "results.csv": results_csv(report),
        "layers.csv": layers_csv(report),
        "results.md": results_markdown(report),
        "report.html": html(report, drawn),
        **{f"figures/{figure.name}.svg": figure.svg for figure in drawn},
    }


def write_report(report: Report, folder: Path) -> None:
    """Write the files of :func:`render` into a folder.

    Raises
    ------
    ArtifactError
        If a file could not be written.
    """
    for name, text in render(report).items():
        store.write_text(folder / name, text)
