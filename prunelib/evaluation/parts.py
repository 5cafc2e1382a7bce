"""Evaluation of a cell in independent parts, each a task of :mod:`prunelib.runtime.tasks`.

Each part's figures are written to the scratch folder as soon as they are computed, so that a killed run can resume; the
record of the cell is assembled from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prunelib.evaluation.continuation import check_prompts, continuation
from prunelib.evaluation.perplexity import PerplexitySettings, perplexity_of, window_losses, windows_run_alone
from prunelib.evaluation.pruned import apply_and_check
from prunelib.evaluation.samples import SamplesSettings
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
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_RANGES = 8  # ranges per text, each a part
_WINDOWS, _KIND = "windows.safetensors", "windows"


class WindowRange(NamedTuple):
    """Windows ``first`` to ``stop - 1`` of a text, in whole batches (the last of a text may be smaller)."""

    text: str
    first: int
    stop: int


class ZeroShotTask(NamedTuple):
    """A zero-shot task."""

    name: str


class Prompt(NamedTuple):
    """A prompt to continue, by its number."""

    number: int


class SparsityCheck(NamedTuple):
    """Sparsity and coverage of the pruned model."""


Part = WindowRange | ZeroShotTask | Prompt | SparsityCheck


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a model; calling it with a part measures that part.

    Attributes
    ----------
    scratch
        Folder of finished figures, from which a later run resumes. Its name is derived from all settings that decide
        the figures (:mod:`prunelib.runtime.resume`), so evaluations are compared by it alone.
    folder, dtype
        The dense model's folder, and the dtype it runs in.
    pruned, made_from
        The refined cell, None to evaluate the dense model, and the provenance that the cell must have.
    perplexity, tasks, items, samples
        Settings of perplexity and of tasks, the folder of the tasks' items (None: the harness downloads them), and
        settings of samples.
    on_windows
        Callback: receives the number of windows measured.
    """

    scratch: Path
    folder: Path = field(compare=False)
    dtype: str = field(compare=False)
    pruned: Path | None = field(compare=False)
    made_from: Mapping[str, Any] = field(compare=False)
    perplexity: PerplexitySettings = field(compare=False)
    tasks: TasksSettings = field(compare=False)
    items: Path | None = field(compare=False)
    samples: SamplesSettings = field(compare=False)
    on_windows: Callable[[int], None] = field(default=lambda _windows: None, compare=False)

    def __call__(self, part: Part) -> Part:
        """Measure a part, write its figures to :meth:`finished`, and return the part."""
        match part:
            case WindowRange():
                self._measure_windows(part)
            case ZeroShotTask(name):
                self.finished("tasks").once(name, partial(self._accuracy, name))
            case Prompt(number):
                self.finished("samples").once(str(number), partial(self._continuation, number))
            case SparsityCheck():
                self.finished("model").once("sparsity", self._sparsity)
        return part

    def finished(self, kind: str) -> FinishedValues:
        """Return what is finished of a kind: ``perplexity-TEXT``, ``tasks``, ``samples`` or ``model``."""
        return FinishedValues(self.scratch / kind)

    def losses(self, text: str) -> list[float]:
        """Return the losses of all windows of a text, in order; all must have been measured."""
        finished, windows = self.finished(f"perplexity-{text}"), len(self.windows()[text])
        return [loss for first in range(0, windows, self.perplexity.batch) for loss in finished.read(str(first))]

    def cost(self, part: Part) -> float:
        """Return the cost of a part in windows; infinity for a task, which takes longest."""
        match part:
            case WindowRange(_, first, stop):
                return stop - first
            case ZeroShotTask():
                return float("inf")
            case Prompt():
                return 1
        return 0

    def windows(self) -> dict[str, "torch.Tensor"]:
        """Return the windows (n, L) int32 of each text."""
        return store.read_tensors(self.scratch / _WINDOWS, _KIND)

    def _measure_windows(self, part: WindowRange) -> None:
        windows, finished = self.windows()[part.text], self.finished(f"perplexity-{part.text}")
        for first in range(part.first, part.stop, self.perplexity.batch):
            batch = windows[first : min(first + self.perplexity.batch, part.stop)]
            finished.once(str(first), partial(self._losses, batch, first))
            self.on_windows(len(batch))

    def _losses(self, windows: "torch.Tensor", first: int) -> list[float]:
        loaded = _loaded(self)
        step = 1 if loaded.windows_alone else len(windows)
        parts = [window_losses(loaded.model, part, first + at * step) for at, part in enumerate(windows.split(step))]
        return [loss for losses in parts for loss in losses]

    def _accuracy(self, name: str) -> dict[str, Any]:
        loaded, settings = _loaded(self), self.tasks.model_copy(update={"names": (name,)})
        return zero_shot(loaded.model, loaded.tokenizer, self.items, settings, self.scratch)[name].model_dump()

    def _continuation(self, number: int) -> str:
        loaded = _loaded(self)
        return continuation(loaded.model, loaded.tokenizer, self.samples.prompts[number], self.samples.tokens)

    def _sparsity(self) -> dict[str, float]:
        loaded = _loaded(self)
        sparsity = achieved_sparsity(loaded.model, loaded.layers.layers)
        return {"sparsity": sparsity, "coverage": loaded.layers.coverage}


class _Loaded(NamedTuple):
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    layers: LayerIndex
    windows_alone: bool  # its output for a window depends on what shares the batch


@lru_cache(maxsize=1)
def _loaded(evaluation: Evaluation) -> _Loaded:
    """Return the pruned model, its tokenizer and layers, cached for the next part measured in the same process."""
    model = load_model(evaluation.folder, evaluation.dtype, machine().device)
    tokenizer = load_tokenizer(evaluation.folder)
    check_length(model, evaluation.perplexity.length, key="evaluation.perplexity.length")
    check_prompts(model, tokenizer, evaluation.samples)
    index = find_layers(model, evaluation.folder)
    if evaluation.pruned:
        apply_and_check(model, index.layers, read_pruned(evaluation.pruned, evaluation.made_from), evaluation.folder)
    alone = any(
        windows_run_alone(model, windows, evaluation.perplexity.batch) for windows in evaluation.windows().values()
    )
    return _Loaded(model, tokenizer, index, alone)


def evaluate_parts(evaluation: Evaluation, windows: Mapping[str, "torch.Tensor"], bar: Meter) -> dict[str, Any]:
    """Measure all parts of an evaluation, and assemble the figures.

    Parameters
    ----------
    windows
        Windows (n, L) int32 of each text.
    bar
        Progress bar; counts windows.

    Returns
    -------
    dict
        ``perplexity``, ``tasks``, ``samples``, ``sparsity`` and ``coverage`` of :class:`prunelib.records.CellResult`.
    """

    def on_done(part: Part, load: Load) -> None:
        bar.advance(part.stop - part.first if isinstance(part, WindowRange) else 0, str(load))

    store.write_tensors(evaluation.scratch / _WINDOWS, windows, _KIND, {})
    here = replace(evaluation, on_windows=bar.advance)
    run_tasks(evaluation, _parts(evaluation, windows), evaluation.cost, evaluation.scratch, on_done, here)
    tasks, samples, length = evaluation.finished("tasks"), evaluation.finished("samples"), evaluation.perplexity.length
    return {
        "perplexity": {text: perplexity_of(evaluation.losses(text), length) for text in windows},
        "tasks": {name: tasks.read(name) for name in evaluation.tasks.names},
        "samples": {prompt: samples.read(str(number)) for number, prompt in enumerate(evaluation.samples.prompts)},
        **evaluation.finished("model").read("sparsity"),
    }


def _parts(evaluation: Evaluation, windows: Mapping[str, "torch.Tensor"]) -> list[Part]:
    batch = evaluation.perplexity.batch
    parts: list[Part] = []
    for text, of_text in windows.items():
        batches = -(-len(of_text) // batch)
        step = -(-batches // _RANGES) * batch
        parts += [WindowRange(text, first, min(first + step, len(of_text))) for first in range(0, len(of_text), step)]
    prompts = map(Prompt, range(len(evaluation.samples.prompts)))
    return [*parts, *map(ZeroShotTask, evaluation.tasks.names), *prompts, SparsityCheck()]
