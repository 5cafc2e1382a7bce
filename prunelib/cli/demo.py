"""A first look, in a few minutes: the first model of the grid at 2:4 by three methods, with samples of text."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunelib.calibration.windows import bos_of
from prunelib.cli.run import reproduce
from prunelib.errors import StageError
from prunelib.evaluation.continuation import continuation
from prunelib.evaluation.held_out import held_out_texts, held_out_windows
from prunelib.evaluation.perplexity import PerplexitySettings, perplexity
from prunelib.model.structure import load_model, load_tokenizer
from prunelib.params import load_params
from prunelib.pruning.in_memory import prune
from prunelib.runtime.machine import machine
from prunelib.runtime.progress import note
from prunelib.sources.documents import read_documents
from prunelib.sources.models import ModelSource
from prunelib.workflow import paths

_METHODS: dict[str, str | list[str] | None] = {
    "Wanda": None,
    "Wanda, swaps": "sparseswaps",
    "Wanda, swaps, refit swaps": ["sparseswaps", "refit_swaps"],
}
_PATTERN, _SAMPLES, _LENGTH, _BATCH = "2:4", 16, 512, 4
_MEASURED = PerplexitySettings(length=_LENGTH, tokens=4096, batch=2)
_PROMPT, _NEW_TOKENS = "The history of the city began when", 48


class Seen(NamedTuple):
    """What the demo shows of a model; the dense one has no error and no seconds."""

    name: str
    perplexity: float
    writing: str
    error: float | None = None
    seconds: float | None = None


def demo() -> None:
    """Fetch the first model of the grid and the calibration text, prune the model three times, and print the results.

    Raises
    ------
    PruneError
        If there is no project here, or its model or text cannot be had.
    """
    params, console = load_params(), Console(highlight=False)
    name, text = params.grid.models[0], params.calibration.text
    if reproduce([f"download_model@{name}", f"download_text@{text}"]):
        raise StageError(f"demo: {name} or {text} could not be fetched; the lines above say why")
    torch.set_num_threads(machine().threads)
    seen = []
    for each in _each(name, text, params.models[name]):
        note(f"{each.name}: perplexity {each.perplexity:.2f}")
        seen.append(each)
    console.print(_table(name, seen), _writings(seen))
    console.print(
        f"{_PATTERN} halves the weights of every decoder block. Next:\n"
        "  prunelib prune MODEL --text FILE --out FOLDER   your own model\n"
        "  prunelib run                                    the whole grid of params.yaml, with a report\n"
        "  prunelib methods                                all methods",
        markup=False,
    )


def _each(name: str, text: str, source: ModelSource) -> Iterator[Seen]:
    """Yield what is seen of the dense model, and of the model pruned by each method."""
    folder, tokenizer = paths.model_folder(name), load_tokenizer(paths.model_folder(name))
    documents = [document.text for document in read_documents(paths.text_folder(text), "calibration")]
    held_out = held_out_texts({text: paths.text_folder(text)}, text)
    bos = bos_of(tokenizer) if source.bos_per_window else None
    (windows,) = held_out_windows(held_out, tokenizer, _MEASURED, bos).values()
    model = load_model(folder, source.dtype, "cpu").to(machine().device)
    yield _seen("dense", model, tokenizer, windows)
    for method, refiner in _METHODS.items():
        model = load_model(folder, source.dtype, "cpu")
        started = time.perf_counter()
        result = prune(
            model,
            tokenizer,
            documents,
            _PATTERN,
            refiner=refiner,
            bos_per_window=source.bos_per_window,
            allow_uncovered=source.allow_uncovered,
            device=machine().device,
            samples=_SAMPLES,
            length=_LENGTH,
            batch=_BATCH,
        )
        seconds = time.perf_counter() - started
        error = sum(each.loss_after for each in result.records) / sum(each.energy for each in result.records)
        found = _seen(method, model.to(machine().device), tokenizer, windows)
        yield found._replace(error=error, seconds=seconds)


def _seen(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, windows: torch.Tensor) -> Seen:
    measured = perplexity(model, windows, _MEASURED.batch)
    written = continuation(model, tokenizer, _PROMPT, _NEW_TOKENS)
    return Seen(name, measured.value, " ".join(written.split()))


def _table(name: str, seen: list[Seen]) -> Table:
    table = Table(title=Text(f"{name}, {_PATTERN}"), box=SIMPLE_HEAD, title_justify="left")
    for heading in ("", "relative error", "perplexity", "seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    for each in seen:
        error = "" if each.error is None else f"{each.error:.4f}"
        table.add_row(each.name, error, f"{each.perplexity:.2f}", "" if each.seconds is None else f"{each.seconds:.0f}")
    return table


def _writings(seen: list[Seen]) -> Table:
    table = Table(title=Text(f"{_PROMPT} ..."), box=SIMPLE_HEAD, title_justify="left", show_header=False)
    for each in seen:
        table.add_row(each.name, Text(each.writing))
    return table
