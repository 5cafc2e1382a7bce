"""Measure a pruned model, or with only --model the dense one: perplexity, zero-shot tasks, sparsity, pruning error."""

from statistics import fmean
from typing import Any

from prunelib import workflow
from prunelib.evaluation.perplexity import perplexity
from prunelib.evaluation.zeroshot import zero_shot
from prunelib.layers import LayerIndex, read_index
from prunelib.machine import machine
from prunelib.masks import read_masks
from prunelib.models import check_length, load_model, load_tokenizer
from prunelib.params import Params
from prunelib.progress import meter
from prunelib.results import Cell, CellResult, PerplexityResult, read_layers, write_record
from prunelib.sources.provenance import model_identity
from prunelib.text import consecutive_windows, tokenize
from prunelib.weights import achieved_sparsity, apply_masks, check_zeros


def evaluate(
    params: Params, model: str, pattern: str | None = None, warmstart: str | None = None, refiner: str | None = None
) -> None:
    """Write the figures of one cell, or of the dense model."""
    cell = Cell(model=model, pattern=pattern, warmstart=warmstart, refiner=refiner)
    folder = workflow.model_folder(model)
    index = read_index(workflow.calibration_folder(model) / "layers.json", model_identity(folder))
    language_model = load_model(folder, params.models[model].dtype, machine().device)
    tokenizer = load_tokenizer(folder)
    errors = _prune(params, cell, language_model, index) if pattern else {}
    result = CellResult(
        cell=cell,
        perplexity=_perplexities(params, cell, language_model, tokenizer),
        tasks=zero_shot(language_model, tokenizer, workflow.task_data(params), params.evaluation.tasks),
        sparsity=achieved_sparsity(language_model, index.layers),
        **errors,
    )
    write_record(workflow.result_file(cell), result)


def _prune(params: Params, cell: Cell, language_model: Any, index: LayerIndex) -> dict[str, float]:
    folder = workflow.model_folder(cell.model)
    expected = {"model": model_identity(folder), **workflow.methods(params, cell)}
    masks = read_masks(workflow.refined_file(cell), expected)
    apply_masks(language_model, index.layers, masks)
    check_zeros(language_model, index.layers, masks, folder)
    layers = read_layers(workflow.layers_file(cell))
    return {
        "relative_error": fmean(layer.relative_error for layer in layers),
        "error_reduction": fmean(layer.error_reduction for layer in layers),
    }


def _perplexities(params: Params, cell: Cell, language_model: Any, tokenizer: Any) -> dict[str, PerplexityResult]:
    settings = params.evaluation.perplexity
    check_length(language_model, settings.length)
    streams = {text: tokenize(workflow.held_out(params, text), tokenizer) for text in params.grid.texts}
    windows = {text: consecutive_windows(stream, settings.length, settings.tokens) for text, stream in streams.items()}
    with meter(f"perplexity of {cell.name}", sum(map(len, windows.values())), "windows") as bar:
        return {text: perplexity(language_model, windows[text], settings.batch, bar.advance) for text in windows}


if __name__ == "__main__":
    workflow.run(evaluate)
