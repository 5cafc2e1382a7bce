"""How fast, and how right, is the GPU's backend? One command for a machine with an NVIDIA GPU, under eight minutes.

    python benchmarks/speed/gpu.py [--dry]

Random layers of real shapes: correlated Gram matrices (a decaying low-rank part and a diagonal, log-normal channel
scales, a few outlier channels), Wanda masks, 60% per row and 2:4. First the GPU's backend of swaps is checked against
the plain backend on the same GPU; then single matrices are timed, and whole blocks of LLaMA-3.1-8B. The other refiners
are checked by the error that they reach, and timed on a matrix. Prints tables and writes benchmarks/results/gpu.json;
ends with 1 where a check failed. ``--dry`` runs the same on a processor at tiny sizes, swaps in Triton's interpreter,
and writes nothing.

``x plain`` compares with the plain backend, timed on a few rows and multiplied by the rows and scans that the papers'
algorithm needs; ``x cpu`` with the processor's backend on all cores, timed on a few rows and multiplied by the rows.
``of limit`` is the share of the rate of fused multiply-adds, measured here, that three operations for every u x j pair
of the counted scans would make: over whole rows it may exceed 1, as scans leave out most pairs there
(``gpu_pairs.py`` counts those of sweeps).
``from memory`` is a block with all that a stage does from Gram matrices in the processor's memory to masks there.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

DRY = "--dry" in sys.argv
if DRY:
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import torch  # noqa: E402
import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from prunelib import NOfM, PerRow, sparseswaps  # noqa: E402
from prunelib.algebra.objective import row_losses  # noqa: E402
from prunelib.kernels.cuda_chunks import CHUNK_ROWS  # noqa: E402
from prunelib.kernels.interface import RowResults  # noqa: E402
from prunelib.kernels.results import collect_rows  # noqa: E402
from prunelib.kernels.swaps import cpu, cuda, reference  # noqa: E402
from prunelib.refiners import block_moves, refit_swaps, sparsefw  # noqa: E402
from prunelib.runtime.compute import AUTO, Compute  # noqa: E402
from prunelib.runtime.machine import machine  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results  # noqa: E402
from synthetic import Layer, random_gram, random_layer  # noqa: E402

DEVICE = torch.device("cpu" if DRY else "cuda")
PATTERNS = {"60% per row": PerRow(sparsity=0.6), "2:4": NOfM(keep=2, group=4)}
REFINERS = {
    "block moves": (block_moves.block_moves, block_moves.BlockMoves(), "2:4"),
    "refit swaps": (refit_swaps.refit_swaps, refit_swaps.RefitSwaps(), "60% per row"),
    "SparseFW": (sparsefw.sparsefw, sparsefw.SparseFW(), "60% per row"),
    "SparseFW at 2:4": (sparsefw.sparsefw, sparsefw.SparseFW(), "2:4"),
    "line search, 100 steps": (
        sparsefw.sparsefw,
        sparsefw.SparseFW(step="line_search", relaxation="plain", rounding="largest", alpha=0.9, iterations=100),
        "60% per row",
    ),
}
OPERATIONS_PER_PAIR = 3
T = TypeVar("T")
BLOCKS_OF_8B = 32
CONSOLE = Console(width=150)


@dataclass(frozen=True)
class Sizes:
    """What is run: shapes are (rows, inputs)."""

    checks: tuple[tuple[int, int], ...]
    matrices: tuple[tuple[int, int], ...]
    inputs_of_a_block: dict[int, tuple[tuple[int, ...], ...]]
    max_swaps: int
    reference_rows: int
    counted_rows: int
    steps: int
    tiles: tuple[tuple[int, int, int, int], ...]


FULL = Sizes(
    checks=((64, 512), (48, 1000), (6, 4096)),
    matrices=((4096, 4096), (14336, 4096), (4096, 14336)),
    # matrices that share an input, by their rows: q k v, o, gate up, down
    inputs_of_a_block={4096: ((4096, 1024, 1024), (4096,), (14336, 14336)), 14336: ((4096,),)},
    max_swaps=100,
    reference_rows=3,
    counted_rows=64,
    steps=32768,
    tiles=((16, 128, 4, 2), (8, 128, 8, 1), (8, 128, 4, 1), (16, 64, 4, 1), (32, 128, 4, 4), (32, 64, 4, 2)),
)
TINY = Sizes(
    checks=((4, 12),),
    matrices=((3, 8), (2, 16)),
    inputs_of_a_block={8: ((3, 2), (3,)), 16: ((2,),)},
    max_swaps=2,
    reference_rows=1,
    counted_rows=2,
    steps=4,
    tiles=((4, 8, 4, 1), (2, 16, 8, 1)),
)
SIZES = TINY if DRY else FULL


def best(of: Layer, max_swaps: int, backend=cuda) -> RowResults:
    """Results of best swaps."""
    return collect_rows(backend.swap_best(of.weight, of.gram, of.mask, of.group, max_swaps, machine().threads), of.mask)


def optimum(of: Layer, backend=cuda) -> RowResults:
    """Results of a backend's way to the optimum."""
    return collect_rows(backend.swap_to_optimum(of.weight, of.gram, of.mask, of.group, machine().threads), of.mask)


def papers_swaps(of: Layer, backend=cuda) -> RowResults:
    """Results of the papers' number of best swaps."""
    return best(of, SIZES.max_swaps, backend)


def seconds_of(run: Callable[[], T]) -> tuple[float, T]:
    """Wall time until the results are on the processor."""
    if not DRY:
        torch.cuda.synchronize()
    started = time.perf_counter()
    results = run()
    return time.perf_counter() - started, results


def check(rows: int, inputs: int, name: str) -> dict:
    """Rows whose best swaps are not the plain backend's, whose optimum is none, or whose losses are wrong."""
    each = random_layer(rows, random_gram(inputs, 1, DEVICE), PATTERNS[name], 2)
    found, expected, swept = best(each, 50), best(each, 50, reference), optimum(each)
    again = best(Layer(each.weight, each.gram, swept.mask.to(DEVICE), each.group), 1, reference)
    losses = row_losses(each.weight, each.gram.double(), swept.mask.to(DEVICE)).cpu()
    return {
        "shape": [rows, inputs],
        "pattern": name,
        "rows_with_other_masks": int((found.mask != expected.mask).any(dim=1).sum()),
        "rows_not_optimal": int(((again.swaps > 0) | ~swept.optimal).sum()),
        "rows_with_wrong_losses": int(((losses - swept.loss_after).abs() > 1e-9 * swept.loss_before).sum()),
        "best_swaps": found.swaps.double().mean().item(),
        "sweeps": swept.sweeps.double().mean().item(),
    }


@triton.jit
def _multiply_add(out, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    x = tl.arange(0, BLOCK).to(tl.float32)
    for _ in range(STEPS):
        x = x * 0.5 + 1.0
    tl.store(out + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), x)


def multiply_add_rate() -> float:
    """Fused multiply-adds a second, 16 independent ones a thread."""
    programs, block = (2, 32) if DRY else (132 * 16, 2048)
    out = torch.empty(programs * block, device=DEVICE)

    def run() -> torch.Tensor:
        _multiply_add[(programs,)](out, SIZES.steps, block)
        return out[:1].cpu()

    run()
    return programs * block * SIZES.steps / min(seconds_of(run)[0] for _ in range(3))


def tiles() -> Iterator[dict]:
    """One scan of the first rows of a square matrix for each shape of a tile, which must not change what it finds."""
    inputs = SIZES.matrices[0][1]
    gram, chosen = random_gram(inputs, 1, DEVICE), cuda.TILE
    each = random_layer(8 if DRY else CHUNK_ROWS, gram, PATTERNS["60% per row"], 2)
    state = cuda.begin(each.weight, each.gram, each.gram.diagonal().contiguous(), each.mask)

    def run() -> torch.Tensor:
        return cuda.scan(state)[:1].cpu()

    expected = cuda.scan(state)
    for kept_rows, kept, pruned, warps in SIZES.tiles:
        cuda.TILE = {"ROWS": kept_rows, "KEPT": kept, "PRUNED": pruned, "num_warps": warps}
        found = cuda.scan(state)
        seconds = min(seconds_of(run)[0] for _ in range(3))
        yield {
            "tile": cuda.TILE,
            "seconds_a_scan": seconds,
            "pairs_a_second": len(each.weight) * each.pairs / seconds,
            "same": torch.equal(found, expected),
        }
    cuda.TILE = chosen


def measure(of: Layer, run: Callable[[Layer], RowResults], rate: float) -> dict:
    """Seconds, figures and memory (weight and Gram matrix included) of one mode; compiled on a few rows before."""
    run(of.rows(SIZES.counted_rows))
    others = 0 if DRY else torch.cuda.memory_allocated() - of.gram.nbytes - of.weight.nbytes
    if not DRY:
        torch.cuda.reset_peak_memory_stats()
    seconds, results = seconds_of(lambda: run(of))
    peak = 0 if DRY else torch.cuda.max_memory_allocated() - others
    pairs = int(results.sweeps.sum()) * of.pairs
    return {
        "shape": list(of.weight.shape),
        "seconds": seconds,
        "peak_bytes": peak,
        "peak_bytes_allowed": of.gram.nbytes + 4 * of.weight.nbytes,
        "pairs": pairs,
        "of_limit": OPERATIONS_PER_PAIR * pairs / seconds / rate,
        "swaps_a_row": results.swaps.double().mean().item(),
        "scans_a_row": results.sweeps.double().mean().item(),
        "error_reduction": 1 - (results.loss_after.sum() / results.loss_before.sum()).item(),
        "rows_optimal": int(results.optimal.sum()),
    }


def plain_seconds(of: Layer) -> float:
    """Seconds of the plain backend for one scan of one row."""
    few = of.rows(SIZES.reference_rows)
    best(few, 0, reference)
    seconds, results = seconds_of(lambda: best(few, 3, reference))
    return seconds / int(results.sweeps.sum())


def processor_seconds(of: Layer, run: Callable[..., RowResults]) -> float:
    """Seconds of the processor's backend for one row."""
    few = of.rows(SIZES.counted_rows)
    here = Layer(few.weight.cpu(), few.gram.cpu(), few.mask.cpu(), few.group)
    run(here.rows(1), backend=cpu)
    return seconds_of(lambda: run(here, backend=cpu))[0] / len(here.mask)


def matrices(rate: float) -> Iterator[dict]:
    """Both modes and patterns on single matrices, and how long the other backends would take for each."""
    for rows, inputs in SIZES.matrices:
        shared = random_gram(inputs, 1, DEVICE)
        for name, pattern in PATTERNS.items():
            each = random_layer(rows, shared, pattern, 2)
            plain = plain_seconds(each)
            needed = best(each.rows(SIZES.counted_rows), 10**6).sweeps.double().mean().item()
            for mode, run, scans in (
                (f"best {SIZES.max_swaps}", papers_swaps, min(needed, SIZES.max_swaps + 1)),
                ("optimum", optimum, needed),
            ):
                record, processor = measure(each, run, rate), processor_seconds(each, run) * rows
                yield {
                    **record,
                    "pattern": name,
                    "mode": mode,
                    "plain_seconds_scaled": plain * scans * rows,
                    "times_plain": plain * scans * rows / record["seconds"],
                    "cpu_seconds_scaled": processor,
                    "times_cpu": processor / record["seconds"],
                }


def block(seed: int, name: str, run: Callable[[Layer], RowResults], rate: float) -> dict:
    """All matrices of one block, layer after layer."""
    seconds, pairs, swaps = 0.0, 0, 0.0
    for inputs, groups in SIZES.inputs_of_a_block.items():
        for k, shapes in enumerate(groups):
            shared = random_gram(inputs, 100 * seed + k, DEVICE)
            for rows in shapes:
                record = measure(random_layer(rows, shared, PATTERNS[name], seed), run, rate)
                seconds, pairs = seconds + record["seconds"], pairs + record["pairs"]
                swaps += record["swaps_a_row"] * rows
    return {"pattern": name, "seconds": seconds, "pairs": pairs, "swaps": swaps}


def from_memory(name: str) -> float:
    """Seconds of a block's way to the optimum, from the Gram matrices on the processor to the masks there."""
    seconds = 0.0
    for inputs, groups in SIZES.inputs_of_a_block.items():
        for k, shapes in enumerate(groups):
            shared = random_gram(inputs, k, DEVICE)
            here = shared.cpu()
            for rows in shapes:
                layer = random_layer(rows, shared, PATTERNS[name], 1)
                given = (layer.weight, here, layer.mask, PATTERNS[name])
                seconds += seconds_of(lambda given=given: sparseswaps(*given).mask.cpu())[0]
    return seconds


def blocks(rate: float) -> Iterator[dict]:
    """Two whole blocks to the optimum, and one with the papers' number of best swaps, extrapolated to all blocks."""
    modes = [(name, "optimum", optimum, 2) for name in PATTERNS]
    modes.append(("60% per row", f"best {SIZES.max_swaps}", papers_swaps, 1))
    for name, mode, run, count in modes:
        records = [block(seed, name, run, rate) for seed in range(1, count + 1)]
        seconds = sum(record["seconds"] for record in records)
        yield {
            "mode": mode,
            "pattern": name,
            "blocks": records,
            "seconds": seconds,
            "seconds_8b_extrapolated": seconds * BLOCKS_OF_8B / count,
            "seconds_of_one_from_memory": from_memory(name) if run is optimum else None,
        }


def refine(name: str, rows: int, inputs: int, compute: Compute = AUTO) -> tuple[float, float]:
    """Seconds that a refiner takes, and the share of Wanda's error that it leaves."""
    method, settings, pattern = REFINERS[name]
    each = random_layer(rows, random_gram(inputs, 1, DEVICE), PATTERNS[pattern], 2)
    given = (each.weight, each.gram, each.mask, PATTERNS[pattern], settings)
    seconds, refined = seconds_of(lambda: method(*given, compute=compute))
    return seconds, float(refined.loss_after.sum() / refined.loss_before.sum())


def refiners() -> Iterator[dict]:
    """What else has a backend: the errors that it and the plain one reach on a few rows, and its time for a matrix."""
    for name in REFINERS:
        ways = (AUTO, Compute(reference=True))
        (_, found), (_, expected) = (refine(name, *SIZES.checks[0], compute) for compute in ways)
        seconds, left = refine(name, *SIZES.matrices[0])
        yield {
            "refiner": name,
            "shape": list(SIZES.matrices[0]),
            "seconds": seconds,
            "error_left": left,
            "times_plain_error": found / expected,
            "as_low_as_plain": found <= 1.01 * expected,
        }


def show(title: str, records: list[dict], columns: dict[str, str]) -> None:
    """Print some columns of records, each with its format."""
    table = Table(*columns, title=title)
    for record in records:
        table.add_row(*(format(record[name], style) if style else str(record[name]) for name, style in columns.items()))
    CONSOLE.print(table)


def main() -> None:
    """Check, measure, print, and write the results after every part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the processor, nothing written")
    parser.parse_args()
    started = time.perf_counter()
    device = "dry run" if DRY else torch.cuda.get_device_name()
    report = {"device": device, "triton": triton.__version__}

    def keep(name: str, records: object) -> None:
        report.update({name: records, "seconds": time.perf_counter() - started})
        if not DRY:
            write_results("gpu", report, device="cuda")

    keep("checks", [check(*shape, name) for shape in SIZES.checks for name in PATTERNS])
    wrong = ("rows_with_other_masks", "rows_not_optimal", "rows_with_wrong_losses")
    show(
        f"Against the plain backend, {device}",
        report["checks"],
        {"shape": "", "pattern": "", **dict.fromkeys(wrong, "")},
    )
    rate = multiply_add_rate()
    keep("multiply_adds_a_second", rate)
    keep("tiles", list(tiles()))
    show(
        f"One scan ({rate:.3g} multiply-adds a second)",
        report["tiles"],
        {"tile": "", "seconds_a_scan": ".4g", "pairs_a_second": ".3g", "same": ""},
    )
    keep("matrices", list(matrices(rate)))
    figures = {
        "seconds": ".4g",
        "of_limit": ".1%",
        "scans_a_row": ".1f",
        "swaps_a_row": ".1f",
        "error_reduction": ".1%",
    }
    memory = {"peak_bytes": ".3g", "peak_bytes_allowed": ".3g"}
    show(
        "Single matrices",
        report["matrices"],
        {"shape": "", "pattern": "", "mode": "", **figures, "times_plain": ".0f", "times_cpu": ".1f", **memory},
    )
    keep("blocks", list(blocks(rate)))
    show(
        "Blocks of LLaMA-3.1-8B",
        report["blocks"],
        {
            "pattern": "",
            "mode": "",
            "seconds": ".4g",
            "seconds_8b_extrapolated": ".4g",
            "seconds_of_one_from_memory": "",
        },
    )
    keep("refiners", list(refiners()))
    show(
        "Other refiners",
        report["refiners"],
        {"refiner": "", "shape": "", "seconds": ".4g", "error_left": ".3f", "times_plain_error": ".4f"},
    )
    CONSOLE.print(f"{report['seconds']:.0f} s in all")
    right = [
        *(not record[name] for record in report["checks"] for name in wrong),
        *(record["same"] for record in report["tiles"]),
        *(record["peak_bytes"] <= record["peak_bytes_allowed"] for record in report["matrices"]),
        *(record["as_low_as_plain"] for record in report["refiners"]),
    ]
    raise SystemExit(not all(right))


if __name__ == "__main__":
    main()
