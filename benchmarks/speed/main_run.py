"""What ``make run`` takes from nothing: seconds, disk and memory of set-up and of the run, seconds of each refinement.

    python benchmarks/speed/main_run.py

Clones the last commit into a temporary folder, with an empty DVC cache, and runs ``make run`` there. Packages that are
in pip's cache are not downloaded again. Writes benchmarks/results/main_run.json.
"""

import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

PROJECT = Path(__file__).parents[2]


def timed(*words: str, folder: Path, environment: dict[str, str]) -> float:
    """Wall seconds of a command, whose output is shown."""
    started = time.perf_counter()
    subprocess.run(words, cwd=folder, env=environment, check=True)
    return time.perf_counter() - started


def disk(folder: Path) -> int:
    """Bytes that the files of a folder take on the disk, files with several names counted once."""
    found = {(file.st_dev, file.st_ino): file.st_blocks * 512 for file in map(os.lstat, folder.rglob("*"))}
    return sum(found.values())


def main() -> None:
    """Clone, set up, run, and write what that took."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary) / "clone"
        subprocess.run(["git", "clone", "--quiet", PROJECT, clone], check=True)
        setup = timed("make", ".venv/run", folder=clone, environment=environment)
        run = timed("make", "run", folder=clone, environment=environment)
        with (clone / "reports" / "timing.csv").open(encoding="utf-8") as stream:
            cells = {row["cell"]: float(row["seconds"]) for row in csv.DictReader(stream)}
        figures = {
            "setup_seconds": setup,
            "run_seconds": run,
            "environment_bytes": disk(clone / ".venv"),
            "project_bytes": disk(clone) - disk(clone / ".venv"),
            "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
            "refining_seconds": cells,
        }
    write_results("main_run", figures)


if __name__ == "__main__":
    main()
