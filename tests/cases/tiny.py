"""What the cases share: a tiny project in a temporary folder, stages that run there, and the verdict.

Cases run from the project's root, with its own environment. Backends are the plain ones, so that nothing is compiled.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path.cwd()
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ |= {"PRUNELIB_THREADS": "1", "PRUNELIB_BACKEND": "reference", "HF_HUB_OFFLINE": "1"}

from pipeline_project import CELL, Project  # noqa: E402

MODEL, *TEXTS = [["stages/download.py", *words] for words in (["--model", "tiny"], ["--text", "ours"], ["--text", "theirs"])]
CALIBRATE, WARMSTART = ["stages/calibrate.py", *CELL[:4]], ["stages/warmstart.py", *CELL[:8]]
BEFORE_REFINEMENT = [MODEL, *TEXTS, CALIBRATE, WARMSTART]

_EACH = """
import runpy, sys
for words in {commands!r}:
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
"""


@contextlib.contextmanager
def tiny_project() -> Iterator[Project]:
    """The project of the pipeline's tests: real stages, one tiny Llama, two texts."""
    with tempfile.TemporaryDirectory() as folder:
        yield Project.of_stages(Path(folder) / "project")


def run(project, *commands) -> tuple[int, str]:
    """Run scripts in the project, in one process; its exit status, and all it said."""
    words = [sys.executable, "-c", _EACH.format(commands=commands)]
    environment = {**project.environment, "PYTHONPATH": str(ROOT)}
    said = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(words, cwd=project.folder, env=environment, **said)
    return done.returncode, done.stdout


def verdict(fault: bool, right: str) -> None:
    """Say what is right, and exit with 1 while the fault is there."""
    print(f"right: {right}\n{'FAULT' if fault else 'fixed'}")
    sys.exit(int(fault))
