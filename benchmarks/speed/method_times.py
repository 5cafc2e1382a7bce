"""Seconds of refinement by every method of the comparison ``methods``, as its last run on this machine took.

    prunelib compare methods
    python benchmarks/speed/method_times.py

Reads reports/methods/timing.csv, and writes benchmarks/results/method_times.json. Refuses times of another machine: the
record in the result file is of this one.
"""

import csv
import json
import sys
from pathlib import Path

from prunelib.runtime.machine import machine

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

TIMING = Path(__file__).parents[2] / "reports" / "methods" / "timing.csv"


def main() -> None:
    """Copy the seconds of all cells, and the machine."""
    with TIMING.open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["seconds"]]
    machines, here = sorted({row["machine"] for row in rows}), machine().refining_name
    if machines != [here]:
        raise SystemExit(f"{TIMING.name} is of {'; '.join(machines)}; this machine is {here}: compare here first")
    figures = {"machines": machines, "seconds": {row["cell"]: float(row["seconds"]) for row in rows}}
    write_results("method_times", figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
