"""What does block reconstruction cost beside its own forward and backward passes? Two blocks of the default model.

    dvc repro download_model@smollm2_135m download_text@wikipedia
    python benchmarks/speed/reconstruction.py

64 windows of 512 tokens, random masks at 60%. The plain reference runs the same number of windows forward, and of
these as many backward, through each block alone, with arguments that were recorded once, a window on each thread.
Both are repeated in turns. Prints a table and writes benchmarks/results/reconstruction.json.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from prunelib.block_refiners.block_reconstruction import BlockReconstruction
from prunelib.calibration.windows import draw_windows, tokenize
from prunelib.masks.pruned import Pruned
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.layers import LayerIndex
from prunelib.model.structure import find_layers, load_model, load_tokenizer
from prunelib.pruning.reconstruction import ModelReconstruction
from prunelib.pruning.refined_blocks import RefinedBlock
from prunelib.runtime.machine import STATE_BYTES, peak_memory
from prunelib.runtime.threads import Workers
from prunelib.sources.documents import read_documents

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

MODEL, TEXT = Path("artifacts/models/smollm2_135m"), Path("artifacts/texts/wikipedia")
SAMPLES, LENGTH, BLOCKS, REPEATS = 64, 512, 2, 3
CPU = torch.device("cpu")


def plain_seconds(model: torch.nn.Module, index: LayerIndex, windows: torch.Tensor) -> Iterator[float]:
    """Seconds of the passes alone, for each block."""
    settings, threads = BlockReconstruction(), torch.get_num_threads()
    trained = settings.trained(SAMPLES)
    backward = settings.epochs * trained
    forward = 2 * SAMPLES + (settings.epochs + 1) * (SAMPLES - trained)
    stream = BlockwiseForward(model, index.block_list, windows.split(1), CPU, STATE_BYTES)
    blocks = list(model.get_submodule(index.block_list).children())
    for block in blocks[:BLOCKS]:
        calls = []
        hook = block.register_forward_pre_hook(
            lambda _, args, kwargs, to=calls: to.append((args, kwargs)), with_kwargs=True
        )
        known = [model.get_parameter(layer.parameter).requires_grad_() for layer in index.of_block(stream.block)]

        def run(window: int) -> None:
            stream.run(window)
            stream.keep(window)

        with Workers(threads) as workers:
            list(workers.map(run, range(SAMPLES)))
            hook.remove()

            def passed(number: int, block=block, calls=calls) -> float:
                with torch.no_grad():
                    args, kwargs = calls[number % SAMPLES]
                    return float(block(*args, **kwargs).square().sum())

            def trained_on(number: int, block=block, calls=calls, known=known) -> float:
                args, kwargs = calls[number % SAMPLES]
                loss = block(*args, **kwargs).square().sum()
                torch.autograd.grad(loss, known)
                return float(loss.detach())

            started = time.perf_counter()
            list(workers.map(passed, range(forward)))
            list(workers.map(trained_on, range(backward)))
            yield time.perf_counter() - started
        stream.advance()


def own_seconds(model: torch.nn.Module, index: LayerIndex, windows: torch.Tensor) -> Iterator[float]:
    """Seconds of block reconstruction, for each block."""
    draw = torch.Generator().manual_seed(0)
    work = ModelReconstruction(
        model,
        index,
        windows,
        BlockReconstruction(),
        lambda _: torch.float32,
        CPU,
        STATE_BYTES,
        torch.get_num_threads(),
    )
    for number in range(BLOCKS):
        masks = {
            layer.name: torch.rand(layer.rows, layer.inputs, generator=draw) < 0.4 for layer in index.of_block(number)
        }
        yield work.refine(RefinedBlock(Pruned(masks, {}), [], [], 0)).reconstruction_seconds
    work.release()


def main() -> None:
    """Measure, print and write."""
    model, tokenizer = load_model(MODEL, "float32", "cpu"), load_tokenizer(MODEL)
    documents = [document.text for document in read_documents(TEXT, "calibration")]
    windows = draw_windows(tokenize(documents, tokenizer), SAMPLES, LENGTH, seed=0)
    index = find_layers(model)
    runs = []
    for _ in range(REPEATS):
        plain, own = (list(seconds(model, index, windows)) for seconds in (plain_seconds, own_seconds))
        runs += [{"plain": a, "reconstruction": b} for a, b in zip(plain, own, strict=True)]
    table = Table("run", "plain s", "reconstruction s", "ratio")
    ratios = [run["reconstruction"] / run["plain"] for run in runs]
    for number, (run, ratio) in enumerate(zip(runs, ratios, strict=True)):
        table.add_row(str(number), f"{run['plain']:.1f}", f"{run['reconstruction']:.1f}", f"{ratio:.2f}")
    Console().print(table)
    write_results("reconstruction", {"median_ratio": median(ratios), "runs": runs, "peak_bytes": peak_memory()})


if __name__ == "__main__":
    main()
