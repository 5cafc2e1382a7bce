"""The report as one self-contained HTML page: styles, figures and the script that sorts and filters are inlined."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prunelib.cell import Cell
from prunelib.reporting.costs import COSTS
from prunelib.reporting.digits import percent
from prunelib.reporting.figures import Drawing, cost_groups, draw_costs
from prunelib.reporting.marks import shown
from prunelib.reporting.names import group_heading, method_name
from prunelib.reporting.notes import cost_notes, notes
from prunelib.reporting.report import Report, as_text
from prunelib.reporting.rows import Row, grouped, main_text, rows_of
from prunelib.reporting.samples import samples_of
from prunelib.reporting.style import RULES, WIDTH, variables
from prunelib.reporting.tables import results_tables

_HERE = Path(__file__).parent
_STYLE = re.compile(r'(?<! class="panel") style="([^"]*)"')


def html(report: Report, drawings: Sequence[Drawing]) -> str:
    """Return the page, with the figure of costs first and the given figures in order."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    costs = draw_costs(report)
    page = environment.get_template("page.html").render(
        updated=any(cell["updated"] for cell in report.cells),
        models=", ".join(report.label("models", model) for model in report.models),
        findings=findings(report),
        tables=results_tables(report, costs=True),
        notes=[*notes(report), *cost_notes(report)],
        costs=costs,
        figures=drawings,
        samples=samples_of(report),
        draws=len(report.seeds),
        point=COSTS,
        pointed={row.cell for group in cost_groups(report) for row in group},
        settings=list(_sections(report.settings)),
        provenance=report.provenance,
        colours=(variables(0), variables(1)),
        rules=Markup(RULES),  # noqa: S704 - our own
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),  # noqa: S704 - our own
        width=WIDTH,
    )
    return _repeated_styles_named(page)


def _repeated_styles_named(page: str) -> str:
    """Replace styles that several marks have by classes, whose rules the page has once: it is a third smaller."""
    counts = Counter(_STYLE.findall(page))
    repeated = (style for style, count in counts.most_common() if count > 1)
    names = {style: f"s{number}" for number, style in enumerate(repeated)}
    rules = "".join(f".{name} {{ {style} }}\n" for style, name in names.items())

    def named(found: re.Match[str]) -> str:
        return f' class="{names[found[1]]}"' if found[1] in names else found[0]

    return _STYLE.sub(named, page).replace("</style>", f"{rules}</style>", 1)


def findings(report: Report) -> list[tuple[str, str]]:
    """Return a heading and a sentence per group of comparable rows: its lowest perplexity on the first text."""
    text = main_text(report)
    measured = [row for row in rows_of(report) if row.perplexity(text) is not None]
    return [
        (group_heading(report, group), _finding(report, text, group, measured))
        for group in grouped(row for row in measured if not row.dense)
    ]


def _finding(report: Report, text: str, group: Sequence[Row], measured: Sequence[Row]) -> str:
    best = min(group, key=lambda row: row.values[f"perplexity_{text}"])
    starts = [row for row in measured if _start(row) == _start(best) and not row.refined]
    dense = [row for row in measured if row.dense and row.cell.model == best.cell.model]
    rivals = {"unrefined": starts if best.refined else [], "dense": dense}
    anchors = [f"{name} {shown(row, text)}" for name, others in rivals.items() for row in others]
    against = f" ({', '.join(anchors)})" if anchors else ""
    reduction = best.values.get("error_reduction") if best.refined else None
    gain = f"; layer error falls by {percent(reduction)}% on average" if reduction is not None else ""
    measured_on = f"{report.label('texts', text)}, {shown(best, text)}{against}"
    return f"{method_name(report, best)} has the lowest perplexity on {measured_on}{gain}."


def _start(row: Row) -> Cell:
    return row.cell.model_copy(update={"refiner": None})


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
