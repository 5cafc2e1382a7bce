"""How many pairs of columns the GPU's sweeps look at; needs no GPU.

    python benchmarks/speed/gpu_pairs.py [--rows N] [--inputs N ...]

Runs the kernels of sweeps to the optimum in Triton's interpreter, on the first rows of random layers with Wanda's mask
at 60% per row, and counts the pairs (u, j) whose change they compute in float32: in the first scan all of them, in
later scans and in visits those that bounds leave. Beside them: what scans without bounds would compute, which is all
pairs of every scan. Prints a table and writes benchmarks/results/gpu_pairs.json.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import torch
from rich.console import Console
from rich.table import Table

from prunelib import PerRow
from prunelib.kernels.results import collect_rows
from prunelib.kernels.swaps import cuda, cuda_sweeps

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results
from synthetic import random_gram, random_layer


class Counted:
    """A kernel of the sweeps that counts under its name the pairs that its programs compute."""

    def __init__(self, name: str, pairs: Counter[str]) -> None:
        self.name, self.kernel, self.pairs = name, getattr(cuda_sweeps, name), pairs

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """Return the launch on a grid."""

        def launch(**operands: Any) -> None:
            computed = cuda_sweeps._changes

            def counting(*arguments: Any) -> Any:
                self.pairs[self.name] += int(arguments[3].handle.data.sum())  # the mask ``read``
                return computed(*arguments)

            cuda_sweeps._changes = counting
            self.kernel[grid](**operands)
            cuda_sweeps._changes = computed

        return launch


def count(rows: int, inputs: int) -> dict[str, float]:
    """Refine the rows of a layer, and return the pairs of a row by where they were computed."""
    layer = random_layer(rows, random_gram(inputs, 1, torch.device("cpu")), PerRow(sparsity=0.6), 2)
    pairs: Counter[str] = Counter()
    kernels = {name: getattr(cuda_sweeps, name) for name in ("visit", "scan_again")}
    for name in kernels:
        setattr(cuda_sweeps, name, Counted(name, pairs))
    started = time.perf_counter()
    results = collect_rows(cuda.swap_to_optimum(layer.weight, layer.gram, layer.mask, layer.group, 1), layer.mask)
    for name, kernel in kernels.items():
        setattr(cuda_sweeps, name, kernel)
    scans = results.sweeps.double().mean().item()
    looked_at = layer.pairs + pairs["scan_again"] / rows
    return {
        "inputs": inputs,
        "rows": rows,
        "seconds": time.perf_counter() - started,
        "swaps_a_row": results.swaps.double().mean().item(),
        "scans_a_row": scans,
        "pairs_of_scans_without_bounds": scans * layer.pairs,
        "pairs_of_scans": looked_at,
        "times_fewer": scans * layer.pairs / looked_at,
        "pairs_of_visits": pairs["visit"] / rows,
        "error_left": (results.loss_after.sum() / results.loss_before.sum()).item(),
    }


def main() -> None:
    """Count, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--inputs", type=int, nargs="+", default=[512, 1024])
    arguments = parser.parse_args()
    records = [count(arguments.rows, inputs) for inputs in arguments.inputs]
    table = Table("inputs", "scans", "swaps", "of all pairs: scans", "visits", "times fewer in scans", "error left")
    for r in records:
        shares = (f"{r[name] / r['inputs'] ** 2:.2f}" for name in ("pairs_of_scans", "pairs_of_visits"))
        figures = (f"{r[name]:.1f}" for name in ("scans_a_row", "swaps_a_row"))
        table.add_row(str(r["inputs"]), *figures, *shares, f"{r['times_fewer']:.1f}", f"{r['error_left']:.4f}")
    Console(width=120).print(table)
    write_results("gpu_pairs", {"records": records})


if __name__ == "__main__":
    main()
