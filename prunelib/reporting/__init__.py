"""The report from the evaluation records: tables for people and for DVC, figures, and one self-contained page."""

from pathlib import Path

from prunelib.reporting import backend  # noqa: F401 - before any other module imports matplotlib
from prunelib.reporting.figures import draw
from prunelib.reporting.page import html
from prunelib.reporting.report import Report
from prunelib.reporting.samples import SAMPLES, samples_json
from prunelib.reporting.tables import layers_csv, metrics_json, results_csv, results_markdown, timing_csv
from prunelib.runtime import atomic, store

__all__ = ["Report", "render", "update_costs", "write_report"]

PAGE, _TIMING, _FIGURES = "report.html", "timing.csv", "figures"


def render(report: Report) -> dict[str, str]:
    """Return the report's files by name, as text; the same report gives the same bytes.

    Returns
    -------
    dict[str, str]
        ``results.csv``, ``layers.csv``, ``metrics.json``, ``samples.json``, ``results.md``, and those of
        ``figures/perplexity.svg``, ``figures/error_reduction.svg`` and ``figures/swaps_per_row.svg`` that have data;
        ``timing.csv`` and ``report.html``, the only files with times, memory and machines.
    """
    drawn = draw(report)
    return {
        "results.csv": results_csv(report),
        **({} if _layers_unknown(report) else {"layers.csv": layers_csv(report)}),
        "metrics.json": metrics_json(report),
        SAMPLES: samples_json(report),
        "results.md": results_markdown(report),
        _TIMING: timing_csv(report),
        PAGE: html(report, drawn),
        **{f"{_FIGURES}/{figure.name}.svg": figure.svg for figure in drawn},
    }


def _layers_unknown(report: Report) -> bool:
    """Return whether cells are pruned, but figures of their layers are missing: it was read from its tables."""
    return not report.layers and any(cell["pattern"] is not None for cell in report.cells)


def update_costs(report: Report, folder: Path) -> None:
    """Rewrite ``timing.csv`` and ``report.html`` if the recorded costs of refinement have changed.

    Raises
    ------
    ArtifactError
        If a file could not be written.
    """
    timing, known = timing_csv(report), folder / _TIMING
    if not known.is_file() or known.read_text(encoding="utf-8") != timing:
        store.write_text(folder / PAGE, html(report, draw(report)))
        store.write_text(known, timing)


def write_report(report: Report, folder: Path) -> None:
    """Write the files of :func:`render` into a folder; the figures replace those of an earlier report.

    Raises
    ------
    ArtifactError
        If a file could not be written.
    """
    files = {Path(name): text for name, text in render(report).items()}
    with atomic.replacing_folder(folder / _FIGURES) as figures:
        for path, text in files.items():
            if path.parent.name:
                (figures / path.name).write_text(text, encoding="utf-8")
            else:
                store.write_text(folder / path, text)
