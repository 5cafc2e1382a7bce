"""Count what comes out of damaged files: one line, the right result, a traceback, another result, or no end.

    python benchmarks/faults/damages.py [--each 60] [--seed 0]

Feeds generated damage to every reader: bits, bytes, and fields that are removed or of another type, size or sign, in
the artifacts and records of the stages, and in what users give: configurations, weights, tokenizers, texts, dumps,
items of tasks, Arrow, GGUF, wheels, masks, params.yaml. The damage and the readers are those of
tests/runtime/test_damage.py, which tries fewer. Works in a temporary folder. Prints a table and writes
benchmarks/results/damages.json; ends with 1 where anything but one line or the right result came out.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table
from transformers import logging

sys.path += [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2] / "tests" / "support")]
from damaged_readers import Outcome, outcome, plain, readers
from file_damages import damages
from record import write_results

OUTCOMES = get_args(Outcome)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--each", type=int, default=60, help="damages of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.set_verbosity_error()
    started, found, bad = time.perf_counter(), {}, []
    with tempfile.TemporaryDirectory() as folder:
        for kind, reader in readers(Path(folder) / "all").items():
            expected, counts = plain(reader.read()), Counter[str]()
            for damage in damages(reader.path.read_bytes(), reader.form, arguments.seed, arguments.each):
                came, line = outcome(reader, expected, damage)
                counts[came] += 1
                if came not in {"one line", "right result"}:
                    bad.append({"kind": kind, "damage": damage.name, "outcome": came, "line": line[:300]})
            found[kind] = {name: counts[name] for name in OUTCOMES}
    total = {name: sum(counts[name] for counts in found.values()) for name in OUTCOMES}
    show(found, total, bad)
    figures = {"seed": arguments.seed, "damages": sum(total.values()), **total, "by_kind": found, "faults": bad}
    write_results("damages", {**figures, "seconds": round(time.perf_counter() - started, 1)})
    sys.exit(1 if bad else 0)


def show(found: dict[str, dict[str, int]], total: dict[str, int], bad: list[dict[str, str]]) -> None:
    """Print the counts of each kind of file, and what went wrong."""
    console, table = Console(), Table("file", *OUTCOMES)
    for kind, counts in {**found, "all": total}.items():
        table.add_row(kind, *(str(counts[name]) for name in OUTCOMES))
    console.print(table)
    for fault in bad:
        console.print(" | ".join(fault.values()), markup=False)


if __name__ == "__main__":
    main()
