"""Do dense targets help matrices whose inputs are those of the pruned model? The default model at 60% per row.

    dvc repro download_model@smollm2_135m download_text
    python benchmarks/experiments/dense_targets.py [--pattern nm24] [--alphas 0 0.25 0.5 1]

Two streams of hidden states go through the model block by block: X_d through the dense blocks, X_s through the pruned
ones. Before a matrix W is pruned by what its inputs X_s are, it is moved towards what returns W X_d for them (QEP,
2504.09629; GPTAQ, 2504.02692):

    W + alpha W (X_d - X_s) X_s^T (X_s X_s^T + damping)^-1

Refiners: swaps, swaps then refit swaps, ALPS. Dense inputs are the baseline. Perplexity is measured on the held-out
part of every text. Five to ten minutes per row on two cores. Prints a table, and writes
benchmarks/results/dense_targets.json after every row; those that it has are not measured again.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from prunelib import select, wanda
from prunelib.calibration.windows import draw_windows, in_batches, tokenize
from prunelib.evaluation.held_out import held_out_texts, held_out_windows
from prunelib.evaluation.perplexity import perplexity
from prunelib.masks.patterns import Pattern
from prunelib.methods.contract import NOTHING_ELSE, MethodSettings, silent
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.layers import LayerIndex, watch_inputs
from prunelib.model.structure import find_layers, load_model, load_tokenizer
from prunelib.params import load_params
from prunelib.pruning.chains import run_chain
from prunelib.runtime.machine import STATE_BYTES, machine
from prunelib.sources.documents import read_documents
from prunelib.workflow.paths import model_folder, text_folder

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import RESULTS, write_results

NAME, MODEL = "dense_targets", "smollm2_135m"
REFINERS = ["swaps", "swaps_refit", "alps"]  # of params.yaml
DAMPING = 0.01  # of the mean of the diagonal, as GPTQ's
DENSE = "dense"


def moved(weight: torch.Tensor, difference: torch.Tensor, gram: torch.Tensor, alpha: float) -> torch.Tensor:
    """The weight (rows, inputs) that a matrix is pruned from; ``difference`` is (X_d - X_s) X_s^T."""
    damped = gram.double() + DAMPING * gram.double().diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    step = torch.linalg.solve(damped, (weight.double() @ difference.double()).T).T
    return (weight.double() + alpha * step).to(weight.dtype)


class Streams:
    """The calibration windows in the dense model, and beside it in the pruned one."""

    def __init__(self, model: torch.nn.Module, index: LayerIndex, batches: list[torch.Tensor]) -> None:
        self.model, self.index = model, index
        cpu = torch.device("cpu")
        self.dense, self.read = (BlockwiseForward(model, index.block_list, batches, cpu, STATE_BYTES) for _ in range(2))

    def grams(self, *, shared: bool) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """X_s X_s^T and (X_d - X_s) X_s^T of every input of the next block, by the name of its reader.

        ``shared``: the dense stream's inputs are taken for both.
        """
        readers = self.index.readers(self.dense.block)
        sums = {layer.name: torch.zeros(2, layer.inputs, layer.inputs) for layer in readers}
        for batch in range(len(self.dense.batches)):
            of_dense = self._inputs(self.dense, batch)
            of_read = of_dense if shared else self._inputs(self.read, batch)
            for name, total in sums.items():
                x_d, x_s = (inputs[name].flatten(0, -2) for inputs in (of_dense, of_read))
                total[0].addmm_(x_s.T, x_s)
                total[1].addmm_((x_d - x_s).T, x_s)
        return {name: (total[0], total[1]) for name, total in sums.items()}

    def _inputs(self, stream: BlockwiseForward, batch: int) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        with watch_inputs(self.model, self.index.readers(stream.block), found.__setitem__):
            stream.run(batch)
        return found

    def advance(self, weights: dict[str, torch.Tensor]) -> None:
        """Run the dense stream through the dense block, and the other through the pruned one, which stays so."""
        for stream in (self.dense, self.read):
            if stream is self.read:
                for layer in self.index.of_block(stream.block):
                    layer.weight(self.model).data.copy_(weights[layer.name])
            for batch in range(len(stream.batches)):
                stream.run(batch)
                stream.keep(batch)
            stream.advance()


def prune(
    model: torch.nn.Module, batches: list[torch.Tensor], pattern: Pattern, refiner: MethodSettings, alpha: float | None
) -> None:
    """Prune a model in place; ``alpha`` None: by dense inputs."""
    index = find_layers(model)
    streams = Streams(model, index, batches)
    for block in range(index.blocks):
        grams = streams.grams(shared=alpha is None)
        weights = {}
        for layer in index.of_block(block):
            gram, difference = grams[layer.gram]
            weight = layer.weight(model).detach()
            start = moved(weight, difference, gram, alpha) if alpha else weight
            mask = select(wanda(start, gram), pattern)
            end = run_chain(start, gram, mask, pattern, refiner, silent, NOTHING_ELSE)[-1].refined
            kept = start if end.weight is None else end.weight
            weights[layer.name] = kept.where(end.mask, 0)
        streams.advance(weights)


def main() -> None:
    """Measure what has not been measured, print and write."""
    params, folder = load_params(), model_folder(MODEL)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pattern", choices=list(params.patterns), default="row60", metavar="NAME")
    parser.add_argument("--alphas", nargs="+", type=float, default=[0.0, 0.25, 0.5, 1.0])
    parser.add_argument("--refiners", nargs="+", choices=list(params.refiners), default=REFINERS, metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(machine().threads)
    tokenizer, settings, text = load_tokenizer(folder), params.calibration, params.calibration.text
    tokens = tokenize([each.text for each in read_documents(text_folder(text), "calibration")], tokenizer)
    windows = draw_windows(tokens, settings.samples, settings.length, seed=0)
    batches, _ = in_batches((windows, windows[:0]), settings.batch)
    texts = held_out_texts({name: text_folder(name) for name in params.grid.texts}, text)
    held_out = held_out_windows(texts, tokenizer, params.evaluation.perplexity)
    file = RESULTS / f"{NAME}.json"
    records: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["records"] if file.exists() else []
    for refiner in arguments.refiners:
        for alpha in [None, *arguments.alphas]:
            row = {"pattern": arguments.pattern, "refiner": refiner, "alpha": DENSE if alpha is None else alpha}
            if any(row.items() <= record.items() for record in records):
                continue
            model, started = load_model(folder, "float32", "cpu"), time.perf_counter()
            prune(model, batches, params.patterns[arguments.pattern], params.refiners[refiner], alpha)
            row["seconds"] = time.perf_counter() - started
            row["perplexity"] = {name: perplexity(model, each, 2).value for name, each in held_out.items()}
            records.append(row)
            write_results(NAME, {"damping": DAMPING, "records": records}, device="cpu")
    table = Table("pattern", "refiner", "alpha", *(f"perplexity, {name}" for name in held_out), "s")
    for record in records:
        values = (f"{value:.2f}" for value in record["perplexity"].values())
        table.add_row(record["pattern"], record["refiner"], str(record["alpha"]), *values, f"{record['seconds']:.0f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
