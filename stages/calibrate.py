"""Draw the calibration windows of a model and accumulate the Gram matrices of its layers over them."""

import torch

from prunelib import store, workflow
from prunelib.calibration import write_grams, write_layers, write_tokens
from prunelib.cell import Cell
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


def calibrate(params: Params, model: str, seed: int) -> None:
    """Write the calibration folder of one model and one draw."""
    settings, source, cell = params.calibration, params.models[model], Cell(model=model, seed=seed)
    folder, text = workflow.model_folder(model), workflow.text_folder(settings.text)
    tokenizer = load_tokenizer(folder)
    documents = [document.text for document in read_documents(text, "calibration")]
    bos = bos_of(tokenizer) if source.bos_per_window else None
    samples = settings.samples + settings.held_out_samples
    windows = draw_windows(tokenize(documents, tokenizer), samples, settings.length, seed, bos)
    drawn, held_out = windows[: settings.samples], windows[settings.samples :]
    language_model = load_model(folder, source.dtype, "cpu")
    check_length(language_model, settings.length, "calibration.length")
    index = find_layers(language_model, folder)
    if not source.allow_uncovered:
        require_coverage(index)
    identity, energies = model_identity(folder), {}
    drawn_from = {
        "model": identity,
        "text": text_identity(text),
        "tokenizer": tokenizer_identity(tokenizer),
        "settings": {**settings.model_dump(), "seed": seed},
    }
    budget = machine().gram_bytes // (2 if len(held_out) else 1)
    passes = sum(len(plan_passes(index.grams(block), budget)) for block in range(index.blocks))
    with (
        store.replacing_folder(workflow.calibration_folder(cell)) as target,
        meter(f"calibrate {model} {seed}", passes * samples, "windows") as bar,
    ):
        provenance = {"model": identity, "tokens": write_tokens(target, drawn, held_out, drawn_from)}
        for block, inputs, inputs_apart in accumulate_grams(
            language_model,
            index,
            drawn,
            held_out,
            batch=settings.batch,
            device=torch.device(machine().device),
            gram_bytes=machine().gram_bytes,
            state_bytes=machine().state_bytes,
            on_windows=bar.advance,
        ):
            write_grams(target, block, inputs, inputs_apart, {**provenance, "count": drawn.numel()})
            for layer in index.of_block(block):
                energies[layer.name] = output_energy(read_weight(folder, layer), inputs[layer.gram].gram)
        write_layers(target, index, energies, provenance)


if __name__ == "__main__":
    workflow.run(calibrate)
