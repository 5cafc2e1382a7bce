"""What does `prunelib.prune` cost beside the work itself: forward passes, Gram products, refinement? The default model.

    dvc repro download_model@smollm2_135m download_text@wikipedia
    python benchmarks/speed/in_memory.py

64 windows of 512 tokens, Wanda and then swaps at 60% per row. The plain reference keeps all Gram matrices of the model
in memory: one pass for these, then a warm start and a refinement for every layer, without records, masks applied or
checks. Each run has a process of its own; both are repeated in turns. Prints a table and writes
benchmarks/results/in_memory.json.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

import prunelib
from prunelib.calibration.accumulation import accumulate_grams
from prunelib.calibration.windows import draw_windows, tokenize
from prunelib.masks.patterns import parse_pattern
from prunelib.masks.selection import select
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.structure import find_layers, load_model, load_tokenizer
from prunelib.model.weights import weight_in
from prunelib.pruning.warm_up import warm_up
from prunelib.runtime.machine import GRAM_BYTES, STATE_BYTES, peak_memory
from prunelib.sources.documents import read_documents

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

MODEL, TEXT = Path("artifacts/models/smollm2_135m"), Path("artifacts/texts/wikipedia")
SAMPLES, LENGTH, BATCH, PATTERN = 64, 512, 4, "60%"
REPEATS = 3
CPU = torch.device("cpu")


def loaded() -> tuple:
    """The model, its windows, and the peak memory of the process once it has run."""
    model, tokenizer = load_model(MODEL, "float32", "cpu"), load_tokenizer(MODEL)
    documents = [document.text for document in read_documents(TEXT, "calibration")]
    windows = draw_windows(tokenize(documents, tokenizer), SAMPLES, LENGTH, seed=0)
    warm_up(prunelib.SparseSwaps(), parse_pattern(PATTERN), CPU, [16])
    with torch.no_grad():
        model.model(windows[:BATCH].long())
    return model, windows, peak_memory()


def reference() -> dict:
    """Seconds of the forward passes with Gram products, and of the warm start with refinement; peak memory."""
    model, windows, before = loaded()
    index, pattern = find_layers(model), parse_pattern(PATTERN)
    started = time.perf_counter()
    batches = windows.split(BATCH)
    forward = BlockwiseForward(model, index.block_list, batches, CPU, STATE_BYTES)
    parts = [range(len(batches))]
    grams = {
        name: known.gram
        for _, (of_block,) in accumulate_grams(forward, index, parts, gram_bytes=GRAM_BYTES)
        for name, known in of_block.items()
    }
    calibrated = time.perf_counter()
    for layer in index.layers:
        weight, gram = weight_in(model, layer), grams[layer.gram]
        prunelib.sparseswaps(weight, gram, select(prunelib.wanda(weight, gram), pattern), pattern)
    refined = time.perf_counter()
    return {
        "calibration": calibrated - started,
        "refinement": refined - calibrated,
        "seconds": refined - started,
        "added_bytes": peak_memory() - before,
    }


def whole() -> dict:
    """Seconds and peak memory of one call."""
    model, windows, before = loaded()
    started = time.perf_counter()
    prunelib.prune(model, None, windows, PATTERN, batch=BATCH, progress=False)
    return {"seconds": time.perf_counter() - started, "added_bytes": peak_memory() - before}


def alone(run) -> dict:
    """Run in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run).result()


def main() -> None:
    """Measure, print and write."""
    runs = [(alone(reference), alone(whole)) for _ in range(REPEATS)]
    ratios = [called["seconds"] / plain["seconds"] for plain, called in runs]
    table = Table("run", "plain s", "of it calibration", "prune s", "ratio", "plain added MB", "prune added MB")
    for number, (plain, called) in enumerate(runs):
        seconds = (plain["seconds"], plain["calibration"], called["seconds"], ratios[number])
        added = (plain["added_bytes"], called["added_bytes"])
        table.add_row(str(number), *(f"{each:.2f}" for each in seconds), *(f"{each / 1e6:.0f}" for each in added))
    Console().print(table)
    figures = {"median_ratio": median(ratios), "runs": [{"plain": plain, "prune": called} for plain, called in runs]}
    write_results("in_memory", figures)


if __name__ == "__main__":
    main()
