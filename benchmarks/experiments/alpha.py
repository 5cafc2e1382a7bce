"""How much of Wanda's mask should SparseFW fix? The share alpha of the paper, on real layers of the default model.

    python benchmarks/experiments/alpha.py [--rows 64]

Needs the default model and its calibration (``dvc repro``). The paper's relaxation and rounding, solved by pairwise
steps, at 60% per row and 2:4; beside it the default of this project, which fixes nothing. Errors are means over layers,
relative to Wanda's. Prints a table and writes benchmarks/results/alpha.json.
"""

import argparse
import sys
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.table import Table

from prunelib import NOfM, PerRow, select, wanda
from prunelib.calibration.artifact import Calibration
from prunelib.cell import Cell
from prunelib.model.weights import read_weight
from prunelib.refiners import sparsefw
from prunelib.runtime.machine import machine
from prunelib.sources.provenance import model_identity
from prunelib.workflow.paths import calibration_folder, model_folder

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

CELL, BLOCKS = Cell(model="smollm2_135m", seed=0), (3, 20)
KINDS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
PATTERNS = {"60% per row": PerRow(sparsity=0.6), "2:4": NOfM(keep=2, group=4)}
ALPHAS = (0.0, 0.25, 0.5, 0.75, 0.9)
WAYS = {
    **{
        f"alpha = {alpha:g}": sparsefw.SparseFW(relaxation="plain", rounding="largest", alpha=alpha) for alpha in ALPHAS
    },
    "tighter, led to a mask": sparsefw.SparseFW(),
}


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(machine().threads)
    folder = model_folder(CELL.model)
    calibration = Calibration.open(calibration_folder(CELL), model_identity(folder))
    chosen = [each for each in calibration.index.layers if each.block in BLOCKS and each.name.endswith(KINDS)]
    layers = [(read_weight(folder, layer)[: arguments.rows], calibration.gram(layer)) for layer in chosen]
    records, table = [], Table("pattern", "way", "error / Wanda's")
    for label, pattern in PATTERNS.items():
        for way, settings in WAYS.items():
            found = [
                sparsefw.sparsefw(weight, gram, select(wanda(weight, gram), pattern), pattern, settings)
                for weight, gram in layers
            ]
            error = fmean(float(each.loss_after.sum() / each.loss_before.sum()) for each in found)
            records.append({"pattern": label, "way": way, "error": error})
            table.add_row(label, way, f"{error:.4f}")
    Console(width=100).print(table)
    write_results("alpha", {"rows": arguments.rows, "records": records}, device="cpu")


if __name__ == "__main__":
    main()
