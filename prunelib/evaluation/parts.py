"""The evaluation of a cell in parts that do not need each other: tasks of :mod:`prunelib.runtime.tasks`.

Each part's figures wait in the scratch folder as soon as they are known, so that a run which was killed goes on; the
record of the cell is put together from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prunelib.evaluation.perplexity import PerplexitySettings, perplexity_of, window_losses
from prunelib.evaluation.pruned import prune
from prunelib.evaluation.zeroshot import TasksSettings, zero_shot
from prunelib.masks.pruned import read_pruned
from prunelib.model.layers import LayerIndex
from prunelib.model.structure import check_length, find_layers, load_model, load_tokenizer
from prunelib.model.weights import achieved_sparsity
from prunelib.runtime import store
from prunelib.runtime.load import Load
from prunelib.runtime.machine import machine
from prunelib.runtime.progress import Meter
from prunelib.runtime.resume import FinishedValues
from prunelib.runtime.tasks import run_tasks

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_RANGES = 8  # of a text's windows, each a part
_WINDOWS, _KIND = "windows.safetensors", "windows"


class WindowRange(NamedTuple):
    """Windows of a text, by the number of the first and of the one after the last: whole batches."""

    text: str
    first: int
    stop: int


class Task(NamedTuple):
    """A zero-shot task, by its name."""

    name: str


class SparsityCheck(NamedTuple):
    """The share of zeros among the prunable weights, and that of these among all."""


Part = WindowRange | Task | SparsityCheck


@dataclass(frozen=True)
class Evaluation:
    """How a model is evaluated; called with a part, it measures that.

    Attributes
    ----------
    scratch
        What an earlier run has finished. Its name is made of all that decides the figures
        (:mod:`prunelib.runtime.resume`): two evaluations are equal if it is the same.
    folder, dtype
        The stock model, and what it runs in.
    pruned, made_from
        The refined cell, and what it must have been made from; None: the dense model.
    perplexity, tasks, items
        What is measured, and the folder of the tasks' items, None where the harness fetches them.
    on_windows
        Told how many windows have been measured.
    """

    scratch: Path
    folder: Path = field(compare=False)
    dtype: str = field(compare=False)
    pruned: Path | None = field(compare=False)
    made_from: Mapping[str, Any] = field(compare=False)
    perplexity: PerplexitySettings = field(compare=False)
    tasks: TasksSettings = field(compare=False)
    items: Path | None = field(compare=False)
    on_windows: Callable[[int], None] = field(default=lambda _windows: None, compare=False)

    def __call__(self, part: Part) -> Part:
        """Measure a part, and write its figures where :attr:`finished` finds them."""
        match part:
            case WindowRange():
                self._measure_windows(part)
            case Task(name):
                self.finished("tasks").once(name, partial(self._accuracy, name))
            case SparsityCheck():
                self.finished("model").once("zeros", self._zeros)
        return part

    def finished(self, kind: str) -> FinishedValues:
        """Finished figures: ``perplexity-TEXT``, ``tasks`` or ``model``."""
        return FinishedValues(self.scratch / kind)

    def losses(self, text: str) -> list[float]:
        """The losses of all windows of a text, in order, once they are measured."""
        finished, windows = self.finished(f"perplexity-{text}"), len(self.windows()[text])
        return [loss for first in range(0, windows, self.perplexity.batch) for loss in finished.read(str(first))]

    def cost(self, part: Part) -> float:
        """The windows of a part; a task takes longer than any."""
        match part:
            case WindowRange(_, first, stop):
                return stop - first
            case Task():
                return float("inf")
        return 0

    def windows(self) -> dict[str, "torch.Tensor"]:
        """The windows (n, L) int32 of each text."""
        return store.read_tensors(self.scratch / _WINDOWS, _KIND)

    def _measure_windows(self, part: WindowRange) -> None:
        windows, finished = self.windows()[part.text], self.finished(f"perplexity-{part.text}")
        for first in range(part.first, part.stop, self.perplexity.batch):
            batch = windows[first : min(first + self.perplexity.batch, part.stop)]
            finished.once(str(first), partial(self._losses, batch, first))
            self.on_windows(len(batch))

    def _losses(self, windows: "torch.Tensor", first: int) -> list[float]:
        return window_losses(_loaded(self).model, windows, first)

    def _accuracy(self, name: str) -> dict[str, Any]:
        tokenizer, settings = load_tokenizer(self.folder), self.tasks.model_copy(update={"names": (name,)})
        return zero_shot(_loaded(self).model, tokenizer, self.items, settings)[name].model_dump()

    def _zeros(self) -> dict[str, float]:
        model, layers = _loaded(self)
        return {"sparsity": achieved_sparsity(model, layers.layers), "coverage": layers.coverage}


class _Loaded(NamedTuple):
    model: "PreTrainedModel"
    layers: LayerIndex


@lru_cache(maxsize=1)
def _loaded(evaluation: Evaluation) -> _Loaded:
    """The model, pruned; kept for the next part that the same process measures."""
    model = load_model(evaluation.folder, evaluation.dtype, machine().device)
    check_length(model, evaluation.perplexity.length, key="evaluation.perplexity.length")
    index = find_layers(model, evaluation.folder)
    if evaluation.pruned:
        prune(model, index.layers, read_pruned(evaluation.pruned, evaluation.made_from), evaluation.folder)
    return _Loaded(model, index)


def evaluate_parts(evaluation: Evaluation, windows: Mapping[str, "torch.Tensor"], bar: Meter) -> dict[str, Any]:
    """Measure all parts of an evaluation, and put the figures together.

    Parameters
    ----------
    windows
        (n, L) int32, of each text.
    bar
        Counts windows.

    Returns
    -------
    dict
        ``perplexity``, ``tasks``, ``sparsity`` and ``coverage`` of :class:`prunelib.results.CellResult`.
    """

    def on_done(part: Part, load: Load) -> None:
        bar.advance(part.stop - part.first if isinstance(part, WindowRange) else 0, str(load))

    store.write_tensors(evaluation.scratch / _WINDOWS, windows, _KIND, {})
    here = replace(evaluation, on_windows=bar.advance)
    run_tasks(evaluation, _parts(evaluation, windows), evaluation.cost, evaluation.scratch, on_done, here)
    tasks, length = evaluation.finished("tasks"), evaluation.perplexity.length
    return {
        "perplexity": {text: perplexity_of(evaluation.losses(text), length) for text in windows},
        "tasks": {name: tasks.read(name) for name in evaluation.tasks.names},
        **evaluation.finished("model").read("zeros"),
    }


def _parts(evaluation: Evaluation, windows: Mapping[str, "torch.Tensor"]) -> list[Part]:
    batch = evaluation.perplexity.batch
    parts: list[Part] = []
    for text, of_text in windows.items():
        batches = -(-len(of_text) // batch)
        step = -(-batches // _RANGES) * batch
        parts += [WindowRange(text, first, min(first + step, len(of_text))) for first in range(0, len(of_text), step)]
    return [*parts, *map(Task, evaluation.tasks.names), SparsityCheck()]
