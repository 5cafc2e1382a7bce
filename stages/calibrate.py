"""Draw the calibration windows of a model and accumulate the Gram matrices of its layers over them."""

from prunelib.runtime.console import one_line

with one_line():  # an interrupt of the imports, which take seconds
    from prunelib.calibration.shards import ShardCalibration, calibrate_in_shards
    from prunelib.calibration.windows import bos_of, check_texts, draw, tokenizer_identity
    from prunelib.cell import Cell
    from prunelib.model.agreement import check_blockwise
    from prunelib.model.layers import LayerIndex, dense_by_reason, require_coverage
    from prunelib.model.structure import check_length, find_layers, load_model, load_tokenizer
    from prunelib.params import Params
    from prunelib.planning.checks import require_capacity_to_calibrate, require_patterns_that_fit
    from prunelib.runtime.atomic import publish
    from prunelib.runtime.progress import meter, note
    from prunelib.runtime.resume import resumable
    from prunelib.sources.documents import read_documents
    from prunelib.sources.provenance import model_identity, text_identity
    from prunelib.stage_code import code_of
    from prunelib.workflow import paths, stage


def calibrate(params: Params, model: str, seed: int) -> None:
    """Write the calibration folder of one model and one seed."""
    settings, source, cell = params.calibration, params.models[model], Cell(model=model, seed=seed)
    folder, text = paths.model_folder(model), paths.text_folder(settings.text)
    tokenizer = load_tokenizer(folder)
    documents, held_out = ([each.text for each in read_documents(text, split)] for split in ("calibration", "held_out"))
    check_texts(held_out, tokenizer)
    if settings.draw == "documents":
        check_texts(documents, tokenizer)
    bos = bos_of(tokenizer) if source.bos_per_window else None
    samples = settings.samples + settings.held_out_samples
    windows = draw(settings.draw, documents, tokenizer, samples, settings.length, seed, bos)
    index, token_bytes = _layers(params, model)
    if not source.allow_uncovered:
        require_coverage(index)
    require_patterns_that_fit({name: params.patterns[name] for name in params.grid.patterns}, index)
    for line in dense_by_reason(index):
        note(line)
    drawn_from = {
        "model": model_identity(folder),
        "text": text_identity(text),
        "tokenizer": tokenizer_identity(tokenizer),
        "settings": {**settings.model_dump(), "seed": seed},
    }
    decides = {**drawn_from, "bos": bos, "dtype": source.dtype, "code": code_of("calibrate")}
    require_capacity_to_calibrate(paths.calibration_folder(cell), index, settings, token_bytes)
    with (
        resumable(f"calibrate-{cell.full_name}", decides) as scratch,
        meter(f"calibrate {model} {seed}", index.blocks * samples, "windows through a block") as bar,
    ):
        parts = (windows[: settings.samples], windows[settings.samples :])
        calibration = ShardCalibration(folder, source.dtype, index, settings, scratch)
        publish(calibrate_in_shards(calibration, parts, drawn_from, bar), paths.calibration_folder(cell))


def _layers(params: Params, name: str) -> tuple[LayerIndex, int]:
    """Return the layers of a model and the bytes of a token's hidden state, after checks that it can be run."""
    folder = paths.model_folder(name)
    model = load_model(folder, params.models[name].dtype, "cpu")
    check_length(model, params.calibration.length, "calibration.length")
    check_length(model, params.evaluation.perplexity.length, "evaluation.perplexity.length")
    index = find_layers(model, folder)
    check_blockwise(model, index.block_list)
    return index, model.config.get_text_config().hidden_size * model.dtype.itemsize


if __name__ == "__main__":
    stage.run(calibrate)
