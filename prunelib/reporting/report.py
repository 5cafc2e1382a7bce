"""The data of a report: the evaluated cells, and how to show them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DASH = "–"

Record = Mapping[str, Any]
"""One row of a CSV file, by column; None for an unknown value."""

Samples = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Report:
    """Everything that a report shows: the rows of its CSV files, and how to show them.

    Attributes
    ----------
    cells
        One row per cell and seed, with the columns of results.csv and timing.csv: in grid order, each model's dense
        cell first; None for unknown values.
    layers
        One row per pruned matrix of each cell and seed, with the columns of layers.csv; empty if unknown.
    texts, tasks, prompts
        Names of the held-out texts and the zero-shot tasks, and the prompts of the samples, in display order.
    labels
        Display labels by section of params.yaml and name (``patterns``, ``row60``: ``60% per row``); a name without one
        is shown as it is.
    settings
        The part of params.yaml that was used.
    provenance
        Information to reproduce the results: heading to text (``Model``, ``Command``).
    measured
        What a text's perplexity and a task's accuracy were measured on: name to text; without those unknown.
    samples
        What each cell wrote: its name to prompt to text.
    code
        The identity of the code of each stage that made a cell, by the cell's name; empty for the grid, whose stages
        all run again when their code changes.
    """

    cells: Sequence[Record]
    layers: Sequence[Record]
    texts: Sequence[str]
    tasks: Sequence[str]
    labels: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, Any]
    provenance: Mapping[str, str]
    measured: Mapping[str, str] = field(default_factory=dict)
    prompts: Sequence[str] = ()
    samples: Samples = field(default_factory=dict)
    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def label(self, section: str, name: str | None) -> str:
        """Return the display label of a name of a section of params.yaml; an en dash for None."""
        return DASH if name is None else self.labels.get(section, {}).get(name, name)

    @property
    def models(self) -> list[str]:
        """Names of the models, in order of first appearance."""
        return self._names("model")

    @property
    def seeds(self) -> list[int]:
        """The seeds of the calibration draws, in order of first appearance."""
        return self._names("seed")

    def _names(self, column: str) -> list[Any]:
        return list(dict.fromkeys(cell[column] for cell in self.cells if cell[column] is not None))


def as_text(value: Any) -> str:
    """Format a value as in params.yaml, lists without brackets."""
    if isinstance(value, list | tuple):
        return ", ".join(as_text(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)


def as_line(settings: Mapping[str, Any]) -> str:
    """Format settings as one line of keys and values."""
    return " · ".join(f"{key} {as_text(value)}" for key, value in settings.items())
