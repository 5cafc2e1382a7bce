"""Every example runs as it is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(name, folder, *words):
    """What an example prints, run in a folder of its own with the library of this checkout."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_fine_tuning_regains_what_pruning_lost_and_keeps_the_zeros(tmp_path):
    printed = run("fine_tune.py", tmp_path, "--to", tmp_path / "tuned")
    losses = {stage: float(value) for stage, value in re.findall(r"^loss, (\S+) +([\d.]+)$", printed, re.MULTILINE)}
    assert losses["fine-tuned"] < losses["pruned"]
    assert len(re.findall(r"^0 of 14 layers", printed, re.MULTILINE)) == 2
    assert (tmp_path / "tuned" / "masks" / "masks.safetensors").is_file()
