"""Evaluate a pruned model, or the dense one with only --model: perplexity, zero-shot tasks, samples, pruning error."""

from prunelib.runtime.console import one_line

with one_line():  # an interrupt of the imports, which take seconds
    from prunelib.calibration.windows import bos_of, tokenizer_identity
    from prunelib.cell import Cell
    from prunelib.evaluation.held_out import held_out_texts, held_out_windows
    from prunelib.evaluation.parts import Evaluation, evaluate_parts
    from prunelib.evaluation.pruned import mean_errors
    from prunelib.evaluation.zeroshot import check_tasks
    from prunelib.masks.pruned import pruned_identity
    from prunelib.model.structure import load_tokenizer
    from prunelib.params import Params
    from prunelib.planning.checks import require_capacity_to_evaluate
    from prunelib.records import CellResult, read_layers, write_cell
    from prunelib.runtime.machine import machine
    from prunelib.runtime.progress import meter
    from prunelib.runtime.resume import resumable
    from prunelib.stage_code import code_of
    from prunelib.workflow import identities, paths, stage


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
    folder, source, settings = paths.model_folder(model), params.models[model], params.evaluation
    require_capacity_to_evaluate(folder, source.dtype, machine().device)
    check_tasks(paths.task_data(params), settings.tasks)
    texts = held_out_texts({text: paths.text_folder(text) for text in params.grid.texts}, params.calibration.text)
    tokenizer = load_tokenizer(folder)
    bos = bos_of(tokenizer) if source.bos_per_window else None
    windows = held_out_windows(texts, tokenizer, settings.perplexity, bos)
    evaluated = identities.evaluated(params, cell)
    pruned = paths.refined_folder(cell) if pattern else None
    decided_by = {"tokenizer": tokenizer_identity(tokenizer), "pruned": pruned and pruned_identity(pruned)}
    decides = {**evaluated, **decided_by, "code": code_of("evaluate")}
    made_from = identities.made_from(params, cell) if pattern else {}
    with (
        resumable(f"evaluate-{cell.full_name}", decides) as scratch,
        meter(f"perplexity of {cell.name}", sum(map(len, windows.values())), "windows") as bar,
    ):
        evaluation = Evaluation(
            scratch=scratch,
            folder=folder,
            dtype=source.dtype,
            pruned=pruned,
            made_from=made_from,
            perplexity=settings.perplexity,
            tasks=settings.tasks,
            items=paths.task_data(params),
            samples=settings.samples,
        )
        figures = evaluate_parts(evaluation, windows, bar)
        records = read_layers(paths.layers_file(cell), made_from) if pattern else None
        errors = mean_errors(records.layers, records.blocks) if records else {}
        write_cell(paths.result_file(cell), CellResult(cell=cell, **figures, **errors), evaluated)


if __name__ == "__main__":
    stage.run(evaluate)
