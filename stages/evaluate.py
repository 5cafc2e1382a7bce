"""Measure a pruned model, or with only --model the dense one: perplexity, zero-shot tasks, sparsity, pruning error."""

from prunelib import workflow
from prunelib.calibration.text import bos_of
from prunelib.cell import Cell
from prunelib.evaluation.held_out import held_out_texts, held_out_windows
from prunelib.evaluation.perplexity import perplexity
from prunelib.evaluation.pruned import mean_errors, prune
from prunelib.evaluation.zeroshot import zero_shot
from prunelib.machine import machine
from prunelib.masks.pruned import read_pruned
from prunelib.model.structure import check_length, find_layers, load_model, load_tokenizer
from prunelib.model.weights import achieved_sparsity
from prunelib.params import Params
from prunelib.progress import meter
from prunelib.results import CellResult, read_layers, write_record
from prunelib.resume import FinishedValues, resumable


def evaluate(
    params: Params,
    model: str,
    seed: int | None = None,
    pattern: str | None = None,
    warmstart: str | None = None,
    refiner: str | None = None,
) -> None:
    """Write the figures of one cell, or of the dense model."""
    cell = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart, refiner=refiner)
    folder, settings = workflow.model_folder(model), params.evaluation.perplexity
    texts = held_out_texts({text: workflow.text_folder(text) for text in params.grid.texts}, params.calibration.text)
    tokenizer = load_tokenizer(folder)
    source = params.models[model]
    windows = held_out_windows(texts, tokenizer, settings, bos_of(tokenizer) if source.bos_per_window else None)
    language_model = load_model(folder, source.dtype, machine().device)
    check_length(language_model, settings.length, key="evaluation.perplexity.length")
    index, errors = find_layers(language_model, folder), {}
    if pattern:
        pruned = read_pruned(workflow.refined_folder(cell), workflow.made_from(params, cell))
        prune(language_model, index.layers, pruned, folder)
        errors = mean_errors(read_layers(workflow.layers_file(cell)))
    with (
        resumable(f"evaluate-{cell.full_name}", workflow.evaluated(params, cell)) as scratch,
        meter(f"perplexity of {cell.name}", sum(map(len, windows.values())), "windows") as bar,
    ):
        perplexities = {
            text: perplexity(language_model, of_text, settings.batch, bar.advance, FinishedValues(scratch / text).once)
            for text, of_text in windows.items()
        }
        data, chosen = workflow.task_data(params), params.evaluation.tasks
        tasks = zero_shot(language_model, tokenizer, data, chosen, FinishedValues(scratch / "tasks").once)
        sparsity = achieved_sparsity(language_model, index.layers)
        figures = {"perplexity": perplexities, "tasks": tasks, "sparsity": sparsity, "coverage": index.coverage}
        write_record(workflow.result_file(cell), CellResult(cell=cell, **figures, **errors))


if __name__ == "__main__":
    workflow.run(evaluate)
