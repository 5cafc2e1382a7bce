"""Does a stage that is killed at random moments end as if it had not been? The default model, with SIGKILL.

    python benchmarks/faults/kills.py [--kills 50] [--seed 0]

Needs ``dvc repro`` to have run: what it made is what must come out. Works in scratch/kills, on one cell. Calibration,
refinement and evaluation are killed in turn, each a few times before it may run through, until there were so many
kills; every file is then compared. Prints a table and writes benchmarks/results/kills.json; ends with 1 where a file
differs.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

PROJECT = Path.cwd()
COPY = PROJECT / "scratch" / "kills"
CELL = ("--model", "smollm2_135m", "--seed", "0", "--pattern", "row60", "--warmstart", "wanda", "--refiner", "swaps")
STAGES = {
    "calibrate": (CELL[:4], ("artifacts/calibration/smollm2_135m/0",)),
    "refine": (CELL, ("artifacts/refined/smollm2_135m/0/row60-wanda-swaps", "results/layers/smollm2_135m/0")),
    "evaluate": (CELL, ("results/cells/smollm2_135m/0",)),
}
LONGEST = 15.0  # seconds from the beginning of a stage's work to a kill
IN_A_ROW = 8  # kills of a stage before it may run through


def prepare() -> None:
    """A copy of the project: code and settings, and what the stages read, linked."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name in ("stages", "prunelib"):
        shutil.copytree(PROJECT / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "params.yaml", COPY)
    shutil.copytree(PROJECT / "artifacts", COPY / "artifacts", copy_function=os.link)
    layers = Path("results/layers/smollm2_135m/0/row60-wanda-swaps.json")
    (COPY / layers.parent).mkdir(parents=True)
    os.link(PROJECT / layers, COPY / layers)


def files(root: Path, folders: tuple[str, ...]) -> dict[str, bytes]:
    """Contents of all files of one cell in these folders."""
    found = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    of_cell = [path for path in found if "results" not in path.parts or path.stem == "row60-wanda-swaps"]
    return {str(path.relative_to(root)): path.read_bytes() for path in of_cell}


def holds(stage: str, pid: int) -> bool:
    """Whether a process has begun to work; the note of one that was killed stays until the next."""
    notes = (COPY / "scratch").glob(f"{stage}-*.holder")
    with contextlib.suppress(FileNotFoundError):
        return any(note.read_text() == f"process {pid}\n" for note in notes)
    return False


def run_until(stage: str, seconds: float) -> bool:
    """Run a stage and kill it so long after it has begun to work; whether it was still running then."""
    words = (sys.executable, f"stages/{stage}.py", *STAGES[stage][0])
    environment = {**os.environ, "PYTHONPATH": str(COPY)}
    with subprocess.Popen(words, cwd=COPY, env=environment, stderr=subprocess.DEVNULL) as running:
        while not holds(stage, running.pid) and running.poll() is None:
            time.sleep(0.01)
        try:
            return running.wait(timeout=seconds) != 0
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            return True


def through(stage: str, draw: random.Random, kills: int) -> dict:
    """Kill a stage until it is through, or so many times and then no more."""
    killed = 0
    while run_until(stage, draw.uniform(0, LONGEST) if killed < kills else 3600):
        killed += 1
    expected, found = (files(root, STAGES[stage][1]) for root in (PROJECT, COPY))
    different = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    return {"stage": stage, "kills": killed, "files": len(expected), "different": different}


def main() -> None:
    """Kill, compare, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    prepare()
    draw, records = random.Random(arguments.seed), []  # noqa: S311 - no secret
    while (left := arguments.kills - sum(record["kills"] for record in records)) > 0:
        records.append(through(list(STAGES)[len(records) % len(STAGES)], draw, min(left, IN_A_ROW)))
    table = Table("stage", "kills", "files", "different")
    for record in records:
        table.add_row(record["stage"], str(record["kills"]), str(record["files"]), str(len(record["different"])))
    Console(width=100).print(table)
    write_results("kills", {**vars(arguments), "records": records})
    raise SystemExit(any(record["different"] for record in records))


if __name__ == "__main__":
    main()
