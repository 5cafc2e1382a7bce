"""The data of a report: the evaluated cells, and how to show them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunelib.cell import Cell
from prunelib.results import CellResult, LayerResult, PerplexityResult, TaskResult, Timing

DASH = "–"


@dataclass(frozen=True)
class CellReport:
    """All records of one cell; ``layers`` is empty and ``timing`` None for the dense model."""

    result: CellResult
    layers: Sequence[LayerResult] = ()
    timing: Timing | None = None

    @property
    def cell(self) -> Cell:
        """The cell's names."""
        return self.result.cell

    @property
    def key(self) -> str:
        """``smollm2_135m-0-row60-wanda-swaps``, ``smollm2_135m-dense``: unique in a report."""
        seed = [] if self.cell.seed is None else [str(self.cell.seed)]
        return "-".join([self.cell.model, *seed, self.cell.name])

    @property
    def dense(self) -> bool:
        """Whether this is the unpruned model."""
        return self.cell.pattern is None

    @property
    def refined(self) -> bool:
        """Whether a refiner ran, even without changing the mask: it counted swaps, proved rows or changed the error."""
        return any(
            layer.swaps is not None or layer.optimal_rows is not None or layer.loss_after != layer.loss_before
            for layer in self.layers
        )

    @property
    def updated(self) -> bool:
        """Whether kept weights were updated: the cell is then reported apart from masks alone."""
        return any(layer.updated for layer in self.layers)

    @property
    def swaps_per_row(self) -> float | None:
        """Number of swaps divided by number of rows, over all layers."""
        return _per_row(self.layers, [layer.swaps for layer in self.layers])

    @property
    def optimal_share(self) -> float | None:
        """Share of all rows that are proven to be at a 1-swap optimum."""
        return _per_row(self.layers, [layer.optimal_rows for layer in self.layers])


def _per_row(layers: Sequence[LayerResult], counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return sum(known) / sum(layer.rows for layer in layers) if known and len(known) == len(counts) else None


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes
    ----------
    cells
        In grid order, each model's dense cell first.
    texts, tasks
        Names of the held-out texts and the zero-shot tasks, in display order.
    labels
        Display labels by section of params.yaml and name (``patterns``, ``row60``: ``60% per row``); a name without one
        is shown as it is.
    settings
        The part of params.yaml that was used.
    provenance
        Information to reproduce the results: heading to text (``Model``, ``Command``).
    """

    cells: Sequence[CellReport]
    texts: Sequence[str]
    tasks: Sequence[str]
    labels: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, Any]
    provenance: Mapping[str, str]

    def label(self, section: str, name: str | None) -> str:
        """Return the display label of a name of a section of params.yaml; an en dash for None."""
        return DASH if name is None else self.labels.get(section, {}).get(name, name)

    @property
    def models(self) -> list[str]:
        """Names of the models, in order of first appearance."""
        return list(dict.fromkeys(cell.cell.model for cell in self.cells))

    @property
    def seeds(self) -> list[int]:
        """The seeds of the calibration draws, in order of first appearance."""
        return list(dict.fromkeys(cell.cell.seed for cell in self.cells if cell.cell.seed is not None))

    @property
    def warmstarts(self) -> list[str]:
        """Names of the warm starts, in order of first appearance."""
        return list(dict.fromkeys(cell.cell.warmstart for cell in self.cells if cell.cell.warmstart))

    def perplexities(self, text: str) -> list[PerplexityResult]:
        """Return the perplexities on one text, of the cells that have one."""
        return [cell.result.perplexity[text] for cell in self.cells if text in cell.result.perplexity]

    def accuracies(self, task: str) -> list[TaskResult]:
        """Return the results on one task, of the cells that have one."""
        return [cell.result.tasks[task] for cell in self.cells if task in cell.result.tasks]


def as_text(value: Any) -> str:
    """Format a value as in params.yaml, lists without brackets."""
    if isinstance(value, list | tuple):
        return ", ".join(as_text(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)


def as_line(settings: Mapping[str, Any]) -> str:
    """Format settings as one line of keys and values."""
    return " · ".join(f"{key} {as_text(value)}" for key, value in settings.items())
