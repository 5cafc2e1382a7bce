"""How does the compiled backend grow with inputs, rows, sparsity, pattern and threads? Random layers of real widths.

    python benchmarks/speed/growth.py

To the optimum from Wanda's mask, by sweeps within rows and by best swaps within groups; the same backend's best swaps
there, on a few rows and one thread, with the sweeps' error relative to theirs; and the plain torch backend's way: its
seconds for one scan of one row, times the scans that best swaps need. (The plain backend would need 15 GB at 14336
inputs, and is left out there.) Pairs that a scan may pass over count as scanned. Prints a table and writes
benchmarks/results/growth.json.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from prunelib import NOfM, PerRow
from prunelib.kernels.interface import RowResults
from prunelib.kernels.results import collect_rows
from prunelib.kernels.swaps import cpu, reference
from prunelib.runtime.machine import available_cores

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results
from synthetic import Layer, random_gram, random_layer

PATTERNS = {
    "50% per row": PerRow(sparsity=0.5),
    "60% per row": PerRow(sparsity=0.6),
    "70% per row": PerRow(sparsity=0.7),
    "2:4": NOfM(keep=2, group=4),
    "4:8": NOfM(keep=4, group=8),
}
ROWS = {576: 1024, 1536: 256, 4096: 64, 14336: 64}
FEW_ROWS = {576: 256, 1536: 64, 4096: 16, 14336: 4}
PLAIN_INPUTS = 4096
T = TypeVar("T")


class Case(NamedTuple):
    """What is measured: a layer of so many inputs and rows, a pattern, threads."""

    inputs: int
    rows: int
    pattern: str
    threads: int


def cases() -> Iterator[Case]:
    """Every width and thread count at 60%, every number of rows and every pattern at one width."""
    for inputs, rows in ROWS.items():
        for threads in sorted({1, available_cores()}):
            yield Case(inputs, rows, "60% per row", threads)
    for rows in (64, 1024):
        yield Case(1536, rows, "60% per row", available_cores())
    for pattern in PATTERNS:
        yield Case(1536, ROWS[1536], pattern, available_cores())


def seconds_of(run: Callable[[], T]) -> tuple[float, T]:
    """Wall time, and what came out."""
    started = time.perf_counter()
    results = run()
    return time.perf_counter() - started, results


def optimum(layer: Layer, threads: int) -> RowResults:
    """Results of the compiled backend."""
    return collect_rows(cpu.swap_to_optimum(layer.weight, layer.gram, layer.mask, layer.group, threads), layer.mask)


def best_swaps(layer: Layer) -> RowResults:
    """Results of best swaps to the optimum, on one thread."""
    return collect_rows(cpu.swap_best(layer.weight, layer.gram, layer.mask, layer.group, 10**6, 1), layer.mask)


def plain_scan_seconds(layer: Layer) -> float:
    """Seconds of the plain backend for one scan of one row."""
    one = layer.rows(1)
    run = lambda: collect_rows(reference.swap_best(one.weight, one.gram, one.mask, one.group, 2, 1), one.mask)  # noqa: E731
    seconds, found = seconds_of(run)
    return seconds / int(found.sweeps.sum())


def measure(case: Case) -> dict:
    """The better of two runs of one case."""
    layer = random_layer(case.rows, random_gram(case.inputs, 1, torch.device("cpu")), PATTERNS[case.pattern], 2)
    few, one = layer.rows(FEW_ROWS[case.inputs]), layer.rows(1)
    optimum(one, 1), best_swaps(one)
    (seconds, found), (again, _) = (seconds_of(lambda: optimum(layer, case.threads)) for _ in range(2))
    a_row = min(seconds, again) / len(layer.mask)
    few_seconds, swept = seconds_of(lambda: optimum(few, 1))
    best_seconds, best = seconds_of(lambda: best_swaps(few))
    plain = plain_scan_seconds(layer) * best.sweeps.double().mean().item() if case.inputs <= PLAIN_INPUTS else None
    scans, kept = found.sweeps.double().mean().item(), layer.mask.double().mean().item()
    return {
        **case._asdict(),
        "milliseconds_a_row": 1000 * a_row,
        "swaps_a_row": found.swaps.double().mean().item(),
        "scans_a_row": scans,
        "pairs_a_second": scans * layer.pairs * kept * (1 - kept) / a_row,
        "times_best_swaps": best_seconds / few_seconds,
        "error_of_best_swaps": (swept.loss_after.sum() / best.loss_after.sum()).item(),
        "times_reference": plain / a_row if plain else None,
    }


def main() -> None:
    """Measure, print, and write the results."""
    headings = ("inputs", "rows", "pattern", "threads", "ms a row", "swaps", "scans", "pairs / s", "x best", "x plain")
    table = Table(*headings)
    records = []
    for case in cases():
        r = measure(case)
        records.append(r)
        ratio = "" if r["times_reference"] is None else f"{r['times_reference']:.0f}"
        counts = (f"{r['swaps_a_row']:.1f}", f"{r['scans_a_row']:.1f}", f"{r['pairs_a_second']:.2g}")
        ratios = (f"{r['times_best_swaps']:.1f}", ratio)
        table.add_row(*map(str, case), f"{r['milliseconds_a_row']:.3g}", *counts, *ratios)
    Console(width=120).print(table)
    write_results("growth", {"records": records}, device="cpu")


if __name__ == "__main__":
    main()
