"""How fast are the backends? Real layers of the default model, same start, in one run: ratios, losses, equal masks.

    python benchmarks/speed/refine.py [--rows 576] [--plain-rows 4] [--threads 2]

Needs ``dvc repro`` to have run (the model and its calibration). ``reference`` is plain torch in float64 with all
threads; it refines the first few of the rows, since it needs minutes for all. Times are for a row, the better of
two runs, from Wanda's mask. Then the compiled backend's two ways to the optimum over all matrices of the model at 60%,
by one thread and by all. Prints a table and writes benchmarks/results/refine.json.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from prunelib import NOfM, PerRow, select, wanda
from prunelib.calibration.artifact import Calibration
from prunelib.cell import Cell
from prunelib.kernels.interface import RowResults
from prunelib.kernels.results import Finished, collect_rows
from prunelib.kernels.scaling import Equilibrated, equilibrate
from prunelib.kernels.swaps import cpu, reference
from prunelib.model.layers import Layer
from prunelib.model.weights import read_weight
from prunelib.runtime.machine import available_cores
from prunelib.sources.provenance import model_identity
from prunelib.workflow.paths import calibration_folder, model_folder

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

CELL = Cell(model="smollm2_135m", seed=0)
LAYERS = ("model.layers.10.self_attn.q_proj", "model.layers.10.mlp.up_proj", "model.layers.10.mlp.down_proj")
PATTERNS = {"60% per row": PerRow(sparsity=0.6), "2:4": NOfM(keep=2, group=4)}
SWAPS = 10
TO_THE_OPTIMUM = 10**6

Backend = Callable[[torch.Tensor, torch.Tensor], Finished]
"""From weight and mask (rows, inputs) to refined rows."""


def measure(run: Backend, weight: torch.Tensor, mask: torch.Tensor) -> tuple[float, RowResults]:
    """Seconds a row of the better of two runs, and what came out."""
    seconds, results = float("inf"), RowResults.untouched(mask)
    for _ in range(2):
        started = time.perf_counter()
        results = collect_rows(run(weight, mask), mask)
        seconds = min(seconds, time.perf_counter() - started)
    return seconds / len(mask), results


@cache
def calibrated() -> Calibration:
    """The calibration of the default model."""
    return Calibration.open(calibration_folder(CELL), model_identity(model_folder(CELL.model)))


def start(layer: Layer, pattern: PerRow | NOfM, rows: int | None = None) -> tuple[Equilibrated, torch.Tensor]:
    """A layer as backends get it, and Wanda's mask, of its first rows."""
    weight, gram = read_weight(model_folder(CELL.model), layer)[:rows], calibrated().gram(layer)
    return equilibrate(weight, gram), select(wanda(weight, gram), pattern)


def backends(gram: torch.Tensor, group: int, threads: int) -> dict[str, tuple[Backend, Backend]]:
    """For each mode the plain backend and the compiled one; within groups the way to the optimum is by best swaps."""
    modes: dict[str, tuple[Backend, Backend]] = {
        f"{SWAPS} best swaps": (
            lambda w, m: reference.swap_best(w, gram, m, group, SWAPS, threads),
            lambda w, m: cpu.swap_best(w, gram, m, group, SWAPS, threads),
        ),
        "best swaps to the optimum": (
            lambda w, m: reference.swap_best(w, gram, m, group, TO_THE_OPTIMUM, threads),
            lambda w, m: cpu.swap_best(w, gram, m, group, TO_THE_OPTIMUM, threads),
        ),
    }
    if group == len(gram):
        modes["sweeps to the optimum"] = (
            lambda w, m: reference.swap_to_optimum(w, gram, m, group, threads),
            lambda w, m: cpu.swap_to_optimum(w, gram, m, group, threads),
        )
    return modes


def compare(name: str, label: str, rows: int, plain_rows: int, threads: int) -> Iterator[dict]:
    """A record for each mode on one layer. The plain backend's way to the optimum is by best swaps, measured once."""
    (layer,) = (layer for layer in calibrated().index.layers if layer.name == name)
    scaled, mask = start(layer, PATTERNS[label], rows)
    best_seconds, plain = 0.0, (0.0, RowResults.untouched(mask))
    modes = backends(scaled.gram, PATTERNS[label].swap_columns(layer.inputs), threads)
    for mode, (plain_backend, backend) in modes.items():
        seconds, found = measure(backend, scaled.weight, mask)
        if not mode.startswith("sweeps"):
            plain = measure(plain_backend, scaled.weight[:plain_rows], mask[:plain_rows])
            best_seconds = seconds
        yield {
            "layer": name,
            "pattern": label,
            "mode": mode,
            "milliseconds_a_row": 1000 * seconds,
            "times_reference": plain[0] / seconds,
            "times_best_swaps": best_seconds / seconds,
            "swaps_a_row": found.swaps.double().mean().item(),
            "scans_a_row": found.sweeps.double().mean().item(),
            "error_reduction": 1 - (found.loss_after.sum() / found.loss_before.sum()).item(),
            "same_masks_as_best": torch.equal(found.mask[:plain_rows], plain[1].mask),
        }


def whole_model(threads: int) -> dict:
    """What best swaps and sweeps to the optimum take over all matrices of the model at 60%, and where sweeps end."""
    torch.set_num_threads(threads)
    by_best, by_sweeps, errors = 0.0, 0.0, []
    for layer in calibrated().index.layers:
        scaled, mask = start(layer, PATTERNS["60% per row"])
        modes = backends(scaled.gram, layer.inputs, threads)
        best_seconds, best = measure(modes["best swaps to the optimum"][1], scaled.weight, mask)
        seconds, found = measure(modes["sweeps to the optimum"][1], scaled.weight, mask)
        by_best += best_seconds * len(mask)
        by_sweeps += seconds * len(mask)
        errors.append((found.loss_after.sum() / best.loss_after.sum()).item())
    return {
        "matrices": len(errors),
        "threads": threads,
        "seconds": by_sweeps,
        "times_best_swaps": by_best / by_sweeps,
        "error_of_best_swaps": sum(errors) / len(errors),
    }


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=576)
    parser.add_argument("--plain-rows", type=int, default=4)
    parser.add_argument("--threads", type=int, default=available_cores())
    sizes = vars(parser.parse_args())
    torch.set_num_threads(sizes["threads"])
    records = [record for layer in LAYERS for label in PATTERNS for record in compare(layer, label, **sizes)]
    table = Table(
        "layer", "pattern", "mode", "ms a row", "x reference", "x best swaps", "error reduction", "same masks"
    )
    for r in records:
        ratios = (f"{r['times_reference']:.0f}", f"{r['times_best_swaps']:.1f}")
        figures = (f"{r['milliseconds_a_row']:.3g}", *ratios, f"{r['error_reduction']:.2%}")
        table.add_row(r["layer"], r["pattern"], r["mode"], *figures, str(r["same_masks_as_best"]))
    Console(width=160).print(table)
    wholes = [whole_model(threads) for threads in sorted({1, sizes["threads"]})]
    for whole in wholes:
        print("{matrices} matrices at 60%, threads {threads}: sweeps {seconds:.1f} s".format(**whole), end=", ")
        print("{times_best_swaps:.1f} times less than best, at {error_of_best_swaps:.4f} of the error".format(**whole))
    write_results("refine", {**sizes, "records": records, "whole_model": wholes}, device="cpu")


if __name__ == "__main__":
    main()
