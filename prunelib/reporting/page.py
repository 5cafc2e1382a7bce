"""The report as one HTML page that needs nothing else: no network, no script; styles and figures are inside."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prunelib.reporting.figures import Drawing
from prunelib.reporting.records import CellReport, Report, as_text
from prunelib.reporting.style import INK, PALETTE, PAPER, heading
from prunelib.reporting.tables import notes, percent, results_tables, significant

_SERIES = {colour: f"series-{index}" for index, colour in enumerate(PALETTE)}


def html(report: Report, drawings: Sequence[Drawing]) -> str:
    """The page, with the given figures in their order."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        models=", ".join(report.label(model) for model in report.models),
        findings=findings(report),
        tables=results_tables(report),
        notes=notes(report),
        figures=[(drawing, _inline(drawing)) for drawing in drawings],
        settings=list(_sections(report.settings)),
        provenance=report.provenance,
        series=_SERIES,
    )


def findings(report: Report) -> list[tuple[str, str]]:
    """The best mask by perplexity on the first text, for each model and pattern: a heading and a sentence."""
    text = next((text for text in report.texts if report.perplexities(text)), "")
    found = []
    for model in report.models:
        groups = report.groups(model)
        dense = _known(groups.pop(None, []), text)
        for pattern, cells in groups.items():
            if known := _known(cells, text):
                sentence = _finding(report, text, known, dense)
                found.append((heading(report, model, report.label(pattern)), sentence))
    return found


def _known(cells: Sequence[CellReport], text: str) -> list[CellReport]:
    return [cell for cell in cells if text in cell.result.perplexity]


def _finding(report: Report, text: str, cells: Sequence[CellReport], dense: Sequence[CellReport]) -> str:
    best = min(cells, key=lambda cell: cell.result.perplexity[text].value)
    starts = [cell for cell in cells if cell.cell.warmstart == best.cell.warmstart and not cell.refined]
    rivals = {"unrefined": starts if best.refined else [], "dense": dense}
    anchors = [f"{name} {_shown(cell, text)}" for name, others in rivals.items() for cell in others]
    method = f"{report.label(best.cell.warmstart)} + {report.label(best.cell.refiner)}"
    against = f" ({', '.join(anchors)})" if anchors else ""
    reduction = best.result.error_reduction if best.refined else None
    gain = f"; layer error falls by {percent(reduction)}% on average" if reduction is not None else ""
    return f"{method} has the lowest perplexity on {report.label(text)}, {_shown(best, text)}{against}{gain}."


def _shown(cell: CellReport, text: str) -> str:
    return significant(cell.result.perplexity[text].value)


def _inline(drawing: Drawing) -> Markup:
    """A figure to stand inside a page: in the page's colours, as wide as its place, with ids of its own."""
    svg = drawing.svg[drawing.svg.index("<svg") :]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{drawing.name}-", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    for colour, variable in {INK: "ink", PAPER: "paper", **_SERIES}.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-labelledby="{drawing.name}"', 1))  # noqa: S704 - our own SVG


def _sections(settings: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Every section by its dotted name, with the values that stand in it and not in a section of its own."""
    values = {key: as_text(value) for key, value in settings.items() if not isinstance(value, Mapping)}
    if values or not settings:
        yield name, values
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _sections(value, f"{name}.{key}".lstrip("."))
