"""The report as one self-contained HTML page: no network, no script; styles and figures are inlined."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prunelib.cell import Cell
from prunelib.reporting.digits import percent, plus_minus, significant
from prunelib.reporting.figures import Drawing
from prunelib.reporting.notes import cost_notes, notes
from prunelib.reporting.records import Report, as_text
from prunelib.reporting.seeds import Row, grouped, rows_of, title
from prunelib.reporting.style import INK, PALETTE, PAPER, heading
from prunelib.reporting.tables import results_tables

_SERIES = {colour: f"series-{index}" for index, colour in enumerate(PALETTE)}


def html(report: Report, drawings: Sequence[Drawing]) -> str:
    """Return the page, with the given figures in order."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        updated=any(cell.updated for cell in report.cells),
        models=", ".join(report.label("models", model) for model in report.models),
        findings=findings(report),
        tables=results_tables(report, costs=True),
        notes=[*notes(report), *cost_notes(report)],
        figures=[(drawing, _inline(drawing)) for drawing in drawings],
        settings=list(_sections(report.settings)),
        provenance=report.provenance,
        series=_SERIES,
    )


def findings(report: Report) -> list[tuple[str, str]]:
    """Return a heading and a sentence per group of comparable rows: its lowest perplexity on the first text."""
    text = next((text for text in report.texts if report.perplexities(text)), "")
    measured = [row for row in rows_of(report) if row.perplexity(text) is not None]
    return [
        (heading(report, group[0].cell.model, title(report, group)), _finding(report, text, group, measured))
        for group in grouped(row for row in measured if not row.dense)
    ]


def _finding(report: Report, text: str, group: Sequence[Row], measured: Sequence[Row]) -> str:
    best = min(group, key=lambda row: row.values[f"perplexity_{text}"])
    starts = [row for row in measured if _start(row) == _start(best) and not row.refined]
    dense = [row for row in measured if row.dense and row.cell.model == best.cell.model]
    rivals = {"unrefined": starts if best.refined else [], "dense": dense}
    anchors = [f"{name} {_shown(row, text)}" for name, others in rivals.items() for row in others]
    names = (report.label("warmstarts", best.cell.warmstart), report.label("refiners", best.cell.refiner))
    against = f" ({', '.join(anchors)})" if anchors else ""
    reduction = best.values.get("error_reduction") if best.refined else None
    gain = f"; layer error falls by {percent(reduction)}% on average" if reduction is not None else ""
    measured_on = f"{report.label('texts', text)}, {_shown(best, text)}{against}"
    return f"{' + '.join(names)} has the lowest perplexity on {measured_on}{gain}."


def _start(row: Row) -> Cell:
    return row.cell.model_copy(update={"refiner": None})


def _shown(row: Row, text: str) -> str:
    key = f"perplexity_{text}"
    mean, spread = significant(row.values[key]), row.spreads.get(key)
    return mean if spread is None else plus_minus(mean, spread)


def _inline(drawing: Drawing) -> Markup:
    """Return a figure's SVG for inlining: in the page's colours, as wide as its container, with unique ids."""
    svg = drawing.svg[drawing.svg.index("<svg") :]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{drawing.name}-", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    for colour, variable in {INK: "ink", PAPER: "paper", **_SERIES}.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-labelledby="{drawing.name}"', 1))  # noqa: S704 - our own SVG


def _sections(settings: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every section's dotted name and values, without the values of its subsections."""
    sections = {key: section for key, value in settings.items() if (section := _section(value)) is not None}
    values = {key: as_text(value) for key, value in settings.items() if key not in sections}
    if values or not settings:
        yield name, values
    for key, section in sections.items():
        yield from _sections(section, f"{name}.{key}".lstrip("."))


def _section(value: Any) -> Mapping[str, Any] | None:
    """Return a value as a section: a mapping, or a list of mappings numbered from 1; None for any other value."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        return {str(number): item for number, item in enumerate(value, start=1)}
    return value if isinstance(value, Mapping) else None
