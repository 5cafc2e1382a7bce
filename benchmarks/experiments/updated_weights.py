"""What lowers the error further once kept weights may move, and what does it cost? Real layers of the default model.

    python benchmarks/experiments/updated_weights.py [--rows 48] [--rounds 5]

Needs the default model and its calibration (``dvc repro``). At 60% per row and 2:4: the baselines; refit swaps after
plain swaps from Wanda; with all kept weights re-estimated at each swap; from other starts, and for each row the best of
them; and again from masks of which a few per cent of the places are exchanged at random, a row keeping what is lower.
Errors are means over layers, relative to Wanda's; times are over all layers, relative to plain and then refit swaps.
Prints a table and writes benchmarks/results/updated_weights.json.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from prunelib import NOfM, PerRow, pruning_error, select, wanda
from prunelib.calibration.artifact import Calibration
from prunelib.cell import Cell
from prunelib.methods.contract import NOTHING_ELSE, silent
from prunelib.model.weights import read_weight
from prunelib.pruning.chains import Chain, run_chain
from prunelib.refiners import refit_swaps
from prunelib.runtime.machine import machine
from prunelib.sources.provenance import model_identity
from prunelib.warmstarts import magnitude, sparsegpt
from prunelib.workflow.paths import calibration_folder, model_folder

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

CELL, BLOCKS = Cell(model="smollm2_135m", seed=0), (3, 20)
KINDS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
PATTERNS = {"60% per row": PerRow(sparsity=0.6), "2:4": NOfM(keep=2, group=4)}
REFIT, ALL = "refit_swaps", {"method": "refit_swaps", "refit": "all"}
SPREAD = 0.25  # of the noise on scores 0 and 1: one place in fifty changes
REFERENCE = "swaps, refit swaps"


class Problem(NamedTuple):
    """The first rows of a layer."""

    weight: torch.Tensor
    gram: torch.Tensor
    pattern: PerRow | NOfM


class Found(NamedTuple):
    """Masks (rows, inputs) and their losses (rows,) with updated weights."""

    mask: torch.Tensor
    losses: torch.Tensor


Way = Callable[[Problem], Found]


def chained(start: Callable[[Problem], torch.Tensor], *steps: object) -> Way:
    """Refiners one after another, from a mask."""
    chain = Chain.model_validate({"chain": steps})

    def run(problem: Problem) -> Found:
        weight, gram, pattern = problem
        end = run_chain(weight, gram, start(problem), pattern, chain, silent, NOTHING_ELSE)[-1].refined
        return Found(end.mask, end.loss_after)

    return run


def from_wanda(problem: Problem) -> torch.Tensor:
    """Wanda's mask."""
    return select(wanda(problem.weight, problem.gram), problem.pattern)


def from_magnitude(problem: Problem) -> torch.Tensor:
    """The mask of the largest weights."""
    return select(magnitude.magnitude(problem.weight, problem.gram), problem.pattern)


def from_sparsegpt(problem: Problem) -> torch.Tensor:
    """SparseGPT's mask."""
    return sparsegpt.sparsegpt(*problem)


def best_of(ways: list[Way]) -> Way:
    """For each row the lowest."""

    def run(problem: Problem) -> Found:
        best, *others = (way(problem) for way in ways)
        for other in others:
            best = lower(best, other)
        return best

    return run


def lower(one: Found, other: Found) -> Found:
    """For each row the lower of two."""
    wins = other.losses < one.losses
    return Found(other.mask.where(wins[:, None], one.mask), other.losses.where(wins, one.losses))


def perturbed(way: Way, rounds: int) -> Way:
    """Again from masks nearby."""

    def run(problem: Problem) -> Found:
        generator = torch.Generator().manual_seed(0)
        best = way(problem)
        for _ in range(rounds):
            noise = SPREAD * torch.randn(best.mask.shape, generator=generator)
            near = select(best.mask + noise, problem.pattern)
            end = refit_swaps.refit_swaps(problem.weight, problem.gram, near, problem.pattern)
            best = lower(best, Found(end.mask, end.loss_after))
        return best

    return run


def ways(rounds: int) -> dict[str, Way]:
    """What is compared."""
    after_swaps = chained(from_wanda, "sparseswaps", REFIT)
    starts = [
        after_swaps,
        chained(from_magnitude, "sparseswaps", REFIT),
        chained(from_sparsegpt, "sparseswaps", REFIT),
        chained(from_wanda, "admm", "least_squares", REFIT),
    ]
    return {
        "SparseGPT, its update, least squares": chained(from_sparsegpt, "sparsegpt_update", "least_squares"),
        "ADMM, least squares": chained(from_wanda, "admm", "least_squares"),
        "swaps, least squares": chained(from_wanda, "sparseswaps", "least_squares"),
        REFERENCE: after_swaps,
        "ADMM, refit swaps": starts[-1],
        "SparseGPT, swaps, refit swaps": starts[-2],
        "swaps, refit swaps, all re-estimated": chained(from_wanda, "sparseswaps", REFIT, ALL),
        "ADMM, refit swaps, all re-estimated": chained(from_wanda, "admm", "least_squares", REFIT, ALL),
        "the best of four starts": best_of(starts),
        f"perturbed {rounds} times": perturbed(after_swaps, rounds),
    }


def problems(calibration: Calibration, pattern: PerRow | NOfM, rows: int) -> Iterator[Problem]:
    """The layers that are measured."""
    for layer in calibration.index.layers:
        if layer.block in BLOCKS and layer.name.endswith(KINDS):
            yield Problem(read_weight(model_folder(CELL.model), layer)[:rows], calibration.gram(layer), pattern)


def measure(way: Way, layers: list[Problem]) -> tuple[float, float]:
    """The mean error relative to Wanda's, and the seconds it took."""
    started = time.perf_counter()
    losses = [float(way(problem).losses.sum()) for problem in layers]
    seconds = time.perf_counter() - started
    starts = [pruning_error(each.weight, each.gram, from_wanda(each)) for each in layers]
    return fmean(loss / start for loss, start in zip(losses, starts, strict=True)), seconds


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(machine().threads)
    calibration = Calibration.open(calibration_folder(CELL), model_identity(model_folder(CELL.model)))
    records = []
    for name, pattern in PATTERNS.items():
        layers = list(problems(calibration, pattern, arguments.rows))
        measure(chained(from_wanda, "sparseswaps", REFIT, ALL), [layers[0]])  # compiled before it is timed
        measured = {way: measure(run, layers) for way, run in ways(arguments.rounds).items()}
        for way, (error, seconds) in measured.items():
            times = seconds / measured[REFERENCE][1]
            records.append({"pattern": name, "way": way, "error": error, "seconds": seconds, "times": times})
    table = Table("pattern", "way", "error / Wanda's", "time, x")
    for r in records:
        table.add_row(r["pattern"], r["way"], f"{r['error']:.4f}", f"{r['times']:.2f}")
    Console(width=100).print(table)
    write_results("updated_weights", {**vars(arguments), "records": records}, device="cpu")


if __name__ == "__main__":
    main()
