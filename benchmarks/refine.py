"""How fast are the engines? Real layers of the default model, same start, in one run: ratios and losses.

    python benchmarks/refine.py [--rows 16] [--threads 2]

Needs ``dvc repro`` to have run (the model and its calibration). ``reference`` is the plain torch engine in float64.
Times are the better of two runs; each engine refines the same rows of the same layers from Wanda at 60% per row. Prints
a table and writes benchmarks/results/refine.json.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from prunelib import PerRow, select, wanda
from prunelib.calibration import Calibration
from prunelib.cell import Cell
from prunelib.kernels.cpu import swaps as cpu
from prunelib.kernels.reference import swaps as reference
from prunelib.kernels.scaling import equilibrate
from prunelib.machine import available_cores
from prunelib.sources.provenance import model_identity
from prunelib.weights import read_weight
from prunelib.workflow import calibration_folder, model_folder

CELL = Cell(model="smollm2_135m", seed=0)
LAYERS = ("model.layers.10.self_attn.q_proj", "model.layers.10.mlp.down_proj")
PATTERN = PerRow(sparsity=0.6)
SWAPS = 10


def problem(layer_name: str, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Equilibrated weight and Gram matrix of a layer's first rows, and Wanda's mask."""
    folder = model_folder(CELL.model)
    calibration = Calibration.open(calibration_folder(CELL), model_identity(folder))
    (layer,) = (layer for layer in calibration.index.layers if layer.name == layer_name)
    weight, gram = read_weight(folder, layer)[:rows], calibration.gram(layer)
    scaled = equilibrate(weight, gram)
    return scaled.weight, scaled.gram, select(wanda(weight, gram), PATTERN)


def measure(run, mask) -> dict:
    """Seconds of the better of two runs, and what came out."""
    seconds, results = float("inf"), []
    for _ in range(2):
        started = time.perf_counter()
        results = [result for _, result in sorted(run(mask), key=lambda part: part[0].start)]
        seconds = min(seconds, time.perf_counter() - started)
    before, after = (
        torch.cat([getattr(r, name) for r in results]).sum().item() for name in ("loss_before", "loss_after")
    )
    return {"seconds": seconds, "reduction": 1 - after / before, "mask": torch.cat([r.mask for r in results])}


def compare(layer: str, rows: int, threads: int) -> list[dict]:
    """One record for each engine and mode on one layer."""
    weight, gram, mask = problem(layer, rows)
    inputs = weight.shape[1]
    runs = {
        f"reference, {SWAPS} best swaps": lambda m: reference.swap_best(weight, gram, m, inputs, SWAPS, threads),
        f"cpu, {SWAPS} best swaps": lambda m: cpu.swap_best(weight, gram, m, inputs, SWAPS, threads),
        "cpu, best swaps to the optimum": lambda m: cpu.swap_best(weight, gram, m, inputs, 10**6, threads),
        "cpu, sweeps to the optimum": lambda m: cpu.swap_to_optimum(weight, gram, m, inputs, threads),
    }
    measured = {name: measure(run, mask) for name, run in runs.items()}
    plain = measured[f"reference, {SWAPS} best swaps"]
    return [
        {
            "layer": layer,
            "rows": rows,
            "inputs": inputs,
            "engine": name,
            "seconds": each["seconds"],
            "times_reference": plain["seconds"] / each["seconds"],
            "reduction": each["reduction"],
            "same_mask_as_reference": torch.equal(each["mask"], plain["mask"]),
        }
        for name, each in measured.items()
    ]


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    records = [record for layer in LAYERS for record in compare(layer, arguments.rows, arguments.threads)]
    table = Table("layer", "engine", "seconds", "x reference", "error reduction", "same mask")
    for r in records:
        figures = (f"{r['seconds']:.3g}", f"{r['times_reference']:.0f}", f"{100 * r['reduction']:.2f}%")
        table.add_row(r["layer"], r["engine"], *figures, str(r["same_mask_as_reference"]))
    Console(width=140).print(table)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "refine.json").write_text(json.dumps({"threads": arguments.threads, "records": records}, indent=2) + "\n")


if __name__ == "__main__":
    main()
