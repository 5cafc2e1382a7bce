"""What a report is made from: the cells that were evaluated, and how they are to be shown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunelib.cell import Cell
from prunelib.results import CellResult, LayerResult, PerplexityResult, TaskResult, Timing

DASH = "–"


@dataclass(frozen=True)
class CellReport:
    """All that is known of one cell; ``layers`` is empty and ``timing`` None for the dense model."""

    result: CellResult
    layers: Sequence[LayerResult] = ()
    timing: Timing | None = None

    @property
    def cell(self) -> Cell:
        """The cell's names."""
        return self.result.cell

    @property
    def key(self) -> str:
        """``smollm2_135m-0-row60-wanda-swaps``, ``smollm2_135m-dense``: one of a kind in a report."""
        seed = [] if self.cell.seed is None else [str(self.cell.seed)]
        return "-".join([self.cell.model, *seed, self.cell.name])

    @property
    def dense(self) -> bool:
        """Whether this is the unpruned model."""
        return self.cell.pattern is None

    @property
    def refined(self) -> bool:
        """Whether a refiner worked on the mask, though it may have left it as it was: it counted, proved or changed."""
        return any(
            layer.swaps is not None or layer.optimal_rows is not None or layer.loss_after != layer.loss_before
            for layer in self.layers
        )

    @property
    def moved(self) -> bool:
        """Whether kept weights have moved: then the cell stands apart from masks alone."""
        return any(layer.moved for layer in self.layers)

    @property
    def swaps_per_row(self) -> float | None:
        """Swaps over all layers by rows over all layers."""
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
        In the order of the grid, each model's dense cell before its others.
    texts, tasks
        Names of the held-out texts and the zero-shot tasks, in the order in which they are shown.
    labels
        How people write the names of params.yaml (``row60``: ``60% per row``); other names stand for themselves.
    settings
        The part of params.yaml that was used.
    provenance
        What a reader needs to do it again: heading to text (``Model``, ``Command``).
    """

    cells: Sequence[CellReport]
    texts: Sequence[str]
    tasks: Sequence[str]
    labels: Mapping[str, str]
    settings: Mapping[str, Any]
    provenance: Mapping[str, str]

    def label(self, name: str | None) -> str:
        """The name as people write it; an en dash for None."""
        return DASH if name is None else self.labels.get(name, name)

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
        """The perplexities of one text, of the cells that have one."""
        return [cell.result.perplexity[text] for cell in self.cells if text in cell.result.perplexity]

    def accuracies(self, task: str) -> list[TaskResult]:
        """The results of one task, of the cells that have one."""
        return [cell.result.tasks[task] for cell in self.cells if task in cell.result.tasks]


def as_text(value: Any) -> str:
    """A value as it reads in params.yaml, lists without brackets."""
    if isinstance(value, list | tuple):
        return ", ".join(as_text(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)


def as_line(settings: Mapping[str, Any]) -> str:
    """Settings in one line, each a key and its value."""
    return " · ".join(f"{key} {as_text(value)}" for key, value in settings.items())
