"""How does the compiled engine grow with inputs, rows, sparsity, pattern and threads? Random layers of real widths.

    python benchmarks/growth.py

To the optimum from Wanda's mask, by sweeps within rows and by best swaps within groups, and the plain torch engine's
way there: its seconds for one scan of one row, times the scans that best swaps need. (The plain engine would need 15 GB
at 14336 inputs, and is left out there.) Prints a table and writes benchmarks/results/growth.json.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from synthetic import Layer, random_gram, random_layer

from prunelib import NOfM, PerRow
from prunelib.kernels.cpu import swaps as cpu
from prunelib.kernels.finished import together
from prunelib.kernels.interface import RowResults
from prunelib.kernels.reference import swaps as reference
from prunelib.machine import available_cores

PATTERNS = {
    "50% per row": PerRow(sparsity=0.5),
    "60% per row": PerRow(sparsity=0.6),
    "70% per row": PerRow(sparsity=0.7),
    "2:4": NOfM(keep=2, group=4),
    "4:8": NOfM(keep=4, group=8),
}
ROWS = {576: 1024, 1536: 256, 4096: 64, 14336: 64}
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
    """Results of the compiled engine."""
    return together(cpu.swap_to_optimum(layer.weight, layer.gram, layer.mask, layer.group, threads), layer.mask)


def plain_seconds(layer: Layer) -> float:
    """Seconds that the plain engine would take for a row."""
    few, one = layer.rows(16), layer.rows(1)
    needed = together(cpu.swap_best(few.weight, few.gram, few.mask, few.group, 10**6, 1), few.mask).sweeps
    run = lambda: together(reference.swap_best(one.weight, one.gram, one.mask, one.group, 2, 1), one.mask)  # noqa: E731
    seconds, found = seconds_of(run)
    return seconds / int(found.sweeps.sum()) * needed.double().mean().item()


def measure(case: Case) -> dict:
    """The better of two runs of one case."""
    layer = random_layer(case.rows, random_gram(case.inputs, 1, torch.device("cpu")), PATTERNS[case.pattern], 2)
    optimum(layer.rows(1), 1)
    (seconds, found), (again, _) = (seconds_of(lambda: optimum(layer, case.threads)) for _ in range(2))
    a_row = min(seconds, again) / len(layer.mask)
    scans, kept = found.sweeps.double().mean().item(), layer.mask.double().mean().item()
    return {
        **case._asdict(),
        "milliseconds_a_row": 1000 * a_row,
        "swaps_a_row": found.swaps.double().mean().item(),
        "scans_a_row": scans,
        "pairs_a_second": scans * layer.pairs * kept * (1 - kept) / a_row,
        "times_reference": plain_seconds(layer) / a_row if case.inputs <= PLAIN_INPUTS else None,
    }


def main() -> None:
    """Measure, print, and write the results."""
    table = Table("inputs", "rows", "pattern", "threads", "ms a row", "swaps", "scans", "pairs / s", "x reference")
    records = []
    for case in cases():
        r = measure(case)
        records.append(r)
        ratio = "" if r["times_reference"] is None else f"{r['times_reference']:.0f}"
        counts = (f"{r['swaps_a_row']:.1f}", f"{r['scans_a_row']:.1f}", f"{r['pairs_a_second']:.2g}", ratio)
        table.add_row(*map(str, case), f"{r['milliseconds_a_row']:.3g}", *counts)
    Console(width=120).print(table)
    target = Path(__file__).parent / "results" / "growth.json"
    target.write_text(json.dumps({"records": records}, indent=2) + "\n")


if __name__ == "__main__":
    main()
