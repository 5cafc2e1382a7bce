"""Samples: what the dense and every pruned model wrote after the same prompts."""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from prunelib.errors import ArtifactError
from prunelib.reporting.marks import shown
from prunelib.reporting.names import heading, method_name
from prunelib.reporting.report import Report, Samples
from prunelib.reporting.rows import Row, main_text, rows_of, title
from prunelib.runtime import store

SAMPLES = "samples.json"


@dataclass(frozen=True)
class Written:
    """What one model wrote: its method, its pattern and perplexity, and the text."""

    name: str
    about: str
    text: str


@dataclass(frozen=True)
class Sample:
    """A prompt, and what each model wrote after it, the dense ones first."""

    prompt: str
    written: Sequence[Written]


def samples_of(report: Report) -> list[Sample]:
    """Return what was written after each prompt; of several seeds, by the first."""
    rows = sorted(rows_of(report), key=lambda row: not row.dense)
    found = (Sample(prompt, list(_written(report, rows, prompt))) for prompt in report.prompts)
    return [sample for sample in found if sample.written]


def _written(report: Report, rows: Sequence[Row], prompt: str) -> Iterator[Written]:
    for row in rows:
        wrote = report.samples.get(row.records[0]["cell"], {}).get(prompt)
        if wrote is not None:
            name = "dense" if row.dense else method_name(report, row)
            yield Written(name, ", ".join(_about(report, row)), printable(wrote))


def _about(report: Report, row: Row) -> Iterator[str]:
    text = main_text(report)
    if not row.dense or len(report.models) > 1:
        yield heading(report, row.cell.model, title(report, [row]))
    if row.perplexity(text) is not None:
        yield f"perplexity {shown(row, text)}"


def printable(text: str) -> str:
    """Return a text with a replacement character for each control character but white space: HTML has none."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(each) == "Cc" and not each.isspace() else each
        for each in text
    )


def samples_json(report: Report) -> str:
    """Return samples.json: by cell and prompt, what the model wrote."""
    return json.dumps(report.samples, indent=1, ensure_ascii=False) + "\n"


def read_samples(path: Path) -> Samples:
    """Read samples.json; a report without it has no samples.

    Raises
    ------
    ArtifactError
        If the file is not one of samples.
    """
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, dict[str, str]]).validate_python(store.read_json(path))
    except ValidationError as error:
        raise ArtifactError(f"{path}: no samples of a report ({error.errors()[0]['msg']})") from None
