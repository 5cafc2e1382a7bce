"""How soon does each step rule solve the relaxation? Real layers of the default model, same start, one run.

    PRUNELIB_THREADS=1 python benchmarks/experiments/frank_wolfe.py [--rows 32]

Needs the default model and its calibration (``dvc repro``). The paper's relaxation at 60% per row from Wanda, with all
weights free and with 90% fixed: 200 and 2000 open-loop iterations set a dual gap, over the relaxed loss and summed
over rows, that line search (looked at every tenth iteration) and pairwise steps then go for. ``error``: that of the
mask of the largest masses, relative to Wanda's. Prints a table and writes benchmarks/results/frank_wolfe.json.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from prunelib import PerRow, pruning_error, select, wanda
from prunelib.calibration.artifact import Calibration
from prunelib.cell import Cell
from prunelib.model.layers import Layer
from prunelib.model.weights import read_weight
from prunelib.refiners.sparsefw import rounded, salient
from prunelib.relaxation import pairwise
from prunelib.relaxation.convexity import plain_share
from prunelib.relaxation.frankwolfe import iterates, line_search, open_loop
from prunelib.relaxation.problem import Relaxation, dual_gap, evaluate, relax
from prunelib.runtime.machine import machine
from prunelib.sources.provenance import model_identity
from prunelib.workflow.paths import calibration_folder, model_folder

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

CELL, BLOCKS = Cell(model="smollm2_135m", seed=0), (3, 20)
KINDS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
PATTERN, ALPHAS = PerRow(sparsity=0.6), (0.0, 0.9)
ITERATIONS, LIMIT, EVERY = (200, 2000), 10_000, 10


class Start(NamedTuple):
    """A layer's first rows, Wanda's mask, and the relaxation with a share of that mask fixed."""

    weight: torch.Tensor
    gram: torch.Tensor
    mask: torch.Tensor
    relaxation: Relaxation


class Reached(NamedTuple):
    """Where a step rule stopped."""

    gap: float
    iterations: int
    seconds: float
    error: float


def layers(calibration: Calibration) -> list[Layer]:
    """Those that are measured."""
    return [layer for layer in calibration.index.layers if layer.block in BLOCKS and layer.name.endswith(KINDS)]


def begin(calibration: Calibration, layer: Layer, rows: int, alpha: float) -> Start:
    """Read a layer and set up its relaxation."""
    weight, gram = read_weight(model_folder(CELL.model), layer)[:rows], calibration.gram(layer)
    mask = select(wanda(weight, gram), PATTERN)
    fixed = salient(weight, gram, mask, PATTERN, alpha)
    return Start(weight, gram, mask, relax(weight, gram, plain_share(gram), fixed, PATTERN))


def until(start: Start, masses: Iterator[torch.Tensor], every: int, target: float) -> Reached:
    """Take iterates until the relative gap is at most ``target``, or to the last; looking at them is not timed."""
    seconds, started = 0.0, time.perf_counter()
    for taken, mass in enumerate(masses, start=1):  # noqa: B007 - the last is what counts
        seconds += time.perf_counter() - started
        gap = relative_gap(start, mass)
        if gap <= target:
            break
        started = time.perf_counter()
    return Reached(gap, taken * every, seconds, error(start, mass))


def relative_gap(start: Start, mass: torch.Tensor) -> float:
    """Dual gap over relaxed loss, both summed over rows."""
    losses, gradient = evaluate(start.relaxation, mass)
    scale = start.relaxation.loss_scale
    return float((dual_gap(start.relaxation, mass, gradient) * scale).sum() / (losses * scale).sum())


def error(start: Start, mass: torch.Tensor) -> float:
    """The pruning error of the rounded masses, relative to that of Wanda's mask."""
    mask = rounded(mass, start.relaxation.fixed, PATTERN)
    return pruning_error(start.weight, start.gram, mask) / pruning_error(start.weight, start.gram, start.mask)


def compare(start: Start, iterations: int) -> dict[str, Reached]:
    """All step rules on one layer."""
    relaxation, mass = start.relaxation, start.mask.double()
    paper = until(start, iterates(relaxation, mass, open_loop, iterations, 0, iterations), iterations, 0)
    searched = until(start, iterates(relaxation, mass, line_search, LIMIT, 0, EVERY), EVERY, paper.gap)
    swapped = until(start, pairwise.relaxed(relaxation, mass, LIMIT, paper.gap), 1, paper.gap)
    return {"open loop": paper, "line search": searched, "pairwise": swapped}


def summary(alpha: float, of_layers: list[dict[str, Reached]]) -> list[dict[str, object]]:
    """One record for each step rule: medians over layers, ratios within each."""
    records = []
    for rule in of_layers[0]:
        pairs = [(each["open loop"], each[rule]) for each in of_layers]
        records.append(
            {
                "alpha": alpha,
                "step": rule,
                "iterations": None if rule == "pairwise" else statistics.median(r.iterations for _, r in pairs),
                "relative_gap": statistics.median(r.gap for _, r in pairs),
                "error": statistics.fmean(r.error for _, r in pairs),
                "times_open_loop": statistics.median(paper.seconds / r.seconds for paper, r in pairs),
                "layers": [r._asdict() for _, r in pairs],
            }
        )
    return records


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(machine().threads)
    calibration = Calibration.open(calibration_folder(CELL), model_identity(model_folder(CELL.model)))
    records = []
    for alpha in ALPHAS:
        starts = [begin(calibration, layer, arguments.rows, alpha) for layer in layers(calibration)]
        for iterations in ITERATIONS:
            records += summary(alpha, [compare(start, iterations) for start in starts])
    table = Table("alpha", "step", "iterations", "relative gap", "error / Wanda's", "x as fast")
    for r in records:
        iterations = "-" if r["iterations"] is None else f"{r['iterations']:.0f}"
        figures = (f"{r['relative_gap']:.2g}", f"{r['error']:.4f}", f"{r['times_open_loop']:.1f}")
        table.add_row(f"{r['alpha']:g}", str(r["step"]), iterations, *figures)
    Console(width=120).print(table)
    write_results("frank_wolfe", {"rows": arguments.rows, "records": records}, device="cpu")


if __name__ == "__main__":
    main()
