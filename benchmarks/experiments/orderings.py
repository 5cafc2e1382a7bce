"""Is what must be lower, lower, matrix by matrix? The table of methods, looked at by layer.

    python benchmarks/experiments/orderings.py

Needs ``prunelib compare methods`` to have run: reads reports/methods/layers.csv, which
is not in git. Compares the errors of two cells on each of the model's matrices, and prints for each pair and pattern on
how many the first is lower, on how many equal, and the mean and largest ratio of their errors. Writes
benchmarks/results/orderings.json.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

LAYERS = Path("reports/methods/layers.csv")
PAIRS = {
    "SparseSwaps' optimum / T = 100": (("wanda", "swaps"), ("wanda", "swaps_t100")),
    "SparseFW, then swaps / swaps": (("wanda", "fw_swaps"), ("wanda", "swaps")),
    "swaps, refit swaps / SparseGPT": (("wanda", "swaps_refit"), ("sparsegpt", "sparsegpt_update")),
    "swaps, refit swaps / ADMM, least squares": (("wanda", "swaps_refit"), ("wanda", "admm_least_squares")),
    "swaps, refit swaps / swaps, least squares": (("wanda", "swaps_refit"), ("wanda", "swaps_least_squares")),
}
PATTERNS = ("row50", "row60", "row70", "nm24", "nm48")


def losses() -> dict[tuple[str, ...], dict[str, float]]:
    """The errors by matrix, of each pattern, warm start and refiner; of the first calibration draw."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    with LAYERS.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["seed"] == "0":
                cell = (row["pattern"], row["warmstart"], row["refiner"])
                found.setdefault(cell, {})[row["name"]] = float(row["loss_after"])
    return found


def compared() -> Iterator[dict[str, object]]:
    """One record for each pair at each pattern where both have run."""
    known = losses()
    for pair, (first, second) in PAIRS.items():
        for pattern in PATTERNS:
            one, other = known.get((pattern, *first)), known.get((pattern, *second))
            if one and other:
                ratios = [one[name] / other[name] for name in one]
                yield {
                    "pair": pair,
                    "pattern": pattern,
                    "matrices": len(ratios),
                    "lower": sum(ratio < 1 for ratio in ratios),
                    "equal": sum(ratio == 1 for ratio in ratios),
                    "mean_ratio": fmean(ratios),
                    "largest_ratio": max(ratios),
                    "ratio_of_totals": sum(one.values()) / sum(other.values()),
                }


def main() -> None:
    """Compare, print, and write the results."""
    records = list(compared())
    table = Table("pair", "pattern", "lower", "equal", "of", "mean ratio", "largest", "of totals")
    for r in records:
        counts = (str(r[name]) for name in ("pattern", "lower", "equal", "matrices"))
        ratios = (f"{r[name]:.4f}" for name in ("mean_ratio", "largest_ratio", "ratio_of_totals"))
        table.add_row(str(r["pair"]), *counts, *ratios)
    Console(width=140).print(table)
    write_results("orderings", {"records": records})


if __name__ == "__main__":
    main()
