"""Draw the calibration windows of a model and accumulate the Gram matrices of its layers over them."""

from prunelib import store, workflow
from prunelib.calibration import write_grams, write_layers, write_tokens
from prunelib.gram import accumulate_grams, plan_passes
from prunelib.layers import require_coverage
from prunelib.machine import machine
from prunelib.models import check_length, find_layers, load_model, load_tokenizer
from prunelib.objective import output_energy
from prunelib.params import Params
from prunelib.progress import meter
from prunelib.sources.documents import read_documents
from prunelib.sources.provenance import model_identity, text_identity
from prunelib.text import bos_of, draw_windows, tokenize, tokenizer_identity
from prunelib.weights import read_weight


def calibrate(params: Params, model: str) -> None:
    """Write the calibration folder of one model."""
    settings, source = params.calibration, params.models[model]
    folder, text = workflow.model_folder(model), workflow.text_folder(settings.text)
    identity = model_identity(folder)
    tokenizer = load_tokenizer(folder)
    documents = [document.text for document in read_documents(text, "calibration")]
    bos = bos_of(tokenizer) if source.bos_per_window else None
    windows = draw_windows(tokenize(documents, tokenizer), settings.samples, settings.length, settings.seed, bos)
    language_model = load_model(folder, source.dtype, machine().device)
    check_length(language_model, settings.length, "calibration.length")
    index = find_layers(language_model, folder)
    if not source.allow_uncovered:
        require_coverage(index)
    drawn_from = {
        "model": identity,
        "text": text_identity(text),
        "tokenizer": tokenizer_identity(tokenizer),
        "settings": settings.model_dump(),
    }
    budget, energies = machine().gram_bytes, {}
    runs = len(plan_passes(index, budget)) * settings.samples
    with (
        store.replacing_folder(workflow.calibration_folder(model)) as target,
        meter(f"calibrate {model}", runs, "windows") as bar,
    ):
        provenance = {"model": identity, "tokens": write_tokens(target, windows, drawn_from)}
        for block, grams in accumulate_grams(
            language_model, index, windows, batch=settings.batch, budget_bytes=budget, on_windows=bar.advance
        ):
            write_grams(target, block, grams, {**provenance, "count": windows.numel()})
            for layer in index.of_block(block):
                energies[layer.name] = output_energy(read_weight(folder, layer), grams[layer.gram])
        write_layers(target, index, energies, provenance)


if __name__ == "__main__":
    workflow.run(calibrate)
