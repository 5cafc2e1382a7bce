"""Which settings of block reconstruction are best? The default model, or the first blocks of it or of another.

    dvc repro download_text calibrate@smollm2_135m-0
    python stages/warmstart.py --model smollm2_135m --seed 0 --pattern row60 --warmstart wanda
    python stages/refine.py --model smollm2_135m --seed 0 --pattern row60 --warmstart wanda --refiner swaps_refit
    python benchmarks/experiments/reconstruction.py [--pattern nm24] [--start alps] [--blocks 6] [--only NAME ...]

Each variation starts from that refined cell (or another, with ``--start``), and changes the default settings or the
number of calibration windows. Perplexity is measured on the held-out part of every text, with only the first
``--blocks`` blocks pruned. All blocks of the default model take about a quarter of an hour per variation on two cores.
Prints a table, and writes benchmarks/results/reconstruction_settings.json after every variation; those that it has are
not measured again.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from prunelib.block_refiners.block_reconstruction import BlockReconstruction
from prunelib.calibration.windows import draw_windows, tokenize
from prunelib.cell import Cell
from prunelib.evaluation.held_out import held_out_texts, held_out_windows
from prunelib.evaluation.perplexity import perplexity
from prunelib.masks.pruned import Pruned, read_pruned
from prunelib.model.layers import Layer, LayerIndex
from prunelib.model.structure import find_layers, load_model, load_tokenizer
from prunelib.model.weights import apply_pruned
from prunelib.params import load_params
from prunelib.pruning.reconstruction import ModelReconstruction
from prunelib.pruning.refined_blocks import RefinedBlock
from prunelib.runtime.machine import STATE_BYTES, machine
from prunelib.sources.documents import read_documents
from prunelib.workflow.identities import made_from
from prunelib.workflow.paths import model_folder, refined_folder, text_folder

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import RESULTS, write_results

NAME = "reconstruction_settings"


class Variation(NamedTuple):
    """Calibration windows, and the settings that are not the defaults."""

    samples: int = 64
    settings: Mapping[str, Any] = {}


START = "not reconstructed"
VARIATIONS = {
    "default": Variation(),
    "128 windows, 2 epochs": Variation(128, {"epochs": 2}),
    "256 windows, 1 epoch": Variation(256, {"epochs": 1}),
    "128 windows": Variation(128),
    "256 windows": Variation(256),
    "256 windows, 2 epochs": Variation(256, {"epochs": 2}),
    "2 epochs": Variation(settings={"epochs": 2}),
    "8 epochs": Variation(settings={"epochs": 8}),
    "rate 0.005": Variation(settings={"learning_rate": 0.005}),
    "rate 0.02": Variation(settings={"learning_rate": 0.02}),
    "1 window a step": Variation(settings={"batch": 1}),
    "4 windows a step": Variation(settings={"batch": 4}),
    "loss: update": Variation(settings={"loss": "update"}),
    "loss: state": Variation(settings={"loss": "state"}),
    "decay: cosine": Variation(settings={"decay": "cosine"}),
    "none held out": Variation(settings={"held_out": 0.0}),
    "dense inputs": Variation(settings={"inputs": "dense"}),
    "half of the target dense": Variation(settings={"dense_target": 0.5}),
}


class Setting(NamedTuple):
    """A model, its refined cell, and the text and windows of its grid."""

    folder: Path
    pruned: Pruned
    blocks: int | None
    calibration: torch.Tensor
    held_out: Mapping[str, torch.Tensor]
    dtype: str


def setting(model: str, pattern: str, start: str, blocks: int | None) -> Setting:
    """What all variations share."""
    params, folder = load_params(), model_folder(model)
    cell = Cell(model=model, seed=0, pattern=pattern, warmstart="wanda", refiner=start)
    tokenizer = load_tokenizer(folder)
    text = params.calibration.text
    tokens = tokenize([each.text for each in read_documents(text_folder(text), "calibration")], tokenizer)
    texts = held_out_texts({text: text_folder(text) for text in params.grid.texts}, text)
    return Setting(
        folder=folder,
        pruned=read_pruned(refined_folder(cell), made_from(params, cell)),
        blocks=blocks,
        calibration=draw_windows(tokens, max(each.samples for each in VARIATIONS.values()), 512, seed=0),
        held_out=held_out_windows(texts, tokenizer, params.evaluation.perplexity),
        dtype=params.models[model].dtype,
    )


def measure(known: Setting, variation: Variation | None) -> dict[str, Any]:
    """The perplexity after a variation, and what it took."""
    model = load_model(known.folder, known.dtype, "cpu")
    index = find_layers(model)
    count = known.blocks or index.blocks
    blocks = [part(known.pruned, index.of_block(number)) for number in range(count)]
    started = time.perf_counter()
    found: dict[str, Any] = {}
    if variation:
        blocks, found["held_out_error"] = reconstructed(model, index, known, variation, blocks)
    found["seconds"] = time.perf_counter() - started
    for number, block in enumerate(blocks):
        apply_pruned(model, index.of_block(number), block)
    found["perplexity"] = {text: perplexity(model, windows, 2).value for text, windows in known.held_out.items()}
    return found


def part(pruned: Pruned, layers: tuple[Layer, ...]) -> Pruned:
    """The masks and weights of some layers."""
    names = [layer.name for layer in layers]
    return Pruned(
        {name: pruned.masks[name] for name in names},
        {name: pruned.weights[name] for name in names if name in pruned.weights},
    )


def reconstructed(
    model: torch.nn.Module, index: LayerIndex, known: Setting, variation: Variation, blocks: list[Pruned]
) -> tuple[list[Pruned], float]:
    """The blocks after a variation, and the error of the last one on the windows held out of the training."""
    work = ModelReconstruction(
        model,
        index,
        known.calibration[: variation.samples],
        BlockReconstruction(**variation.settings),
        lambda _: torch.float32,
        torch.device("cpu"),
        STATE_BYTES,
        machine().threads,
    )
    refined = [work.refine(RefinedBlock(block, [], [], 0)) for block in blocks]
    work.release()
    return [each.pruned for each in refined], refined[-1].reconstruction.error_after


def main() -> None:
    """Measure what has not been measured, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--pattern", default="row60", help="a name under patterns in params.yaml")
    parser.add_argument("--start", default="swaps_refit", help="a name under refiners in params.yaml")
    parser.add_argument("--blocks", type=int, help="only the first ones")
    parser.add_argument("--only", nargs="+", choices=[START, *VARIATIONS], default=[START, *VARIATIONS])
    arguments = parser.parse_args()
    torch.set_num_threads(machine().threads)
    key = {name: getattr(arguments, name) for name in ("model", "pattern", "start", "blocks")}
    file = RESULTS / f"{NAME}.json"
    records = json.loads(file.read_text(encoding="utf-8"))["records"] if file.exists() else []
    have = {record["variation"] for record in records if key.items() <= record.items()}
    known = setting(**key)
    for name in arguments.only:
        if name not in have:
            records.append({**key, "variation": name, **measure(known, VARIATIONS.get(name))})
            write_results(NAME, {"records": records}, device="cpu")
    table = Table("variation", *(f"perplexity, {text}" for text in known.held_out), "s")
    for record in records:
        if key.items() <= record.items():
            values = (f"{value:.2f}" for value in record["perplexity"].values())
            table.add_row(record["variation"], *values, f"{record['seconds']:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
