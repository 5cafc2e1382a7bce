"""The scripts of the stages, as a user meets them on the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stage(tmp_path):
    """Run a stage's script in an empty project that has only the params; its exit status and both streams."""
    shutil.copy(ROOT / "params.yaml", tmp_path)

    def run(name, *options, **environment):
        words = [sys.executable, ROOT / "stages" / f"{name}.py", *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PRUNELIB_THREADS": "1", **environment}
        done = subprocess.run(words, cwd=tmp_path, env=env, text=True, capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


OPTIONS = ("--model", "smollm2_135m", "--seed", "0", "--pattern", "row60", "--warmstart", "wanda", "--refiner")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((*OPTIONS, "swap"), "error: --refiner: unknown name 'swap', expected one of none, swaps, "),
        ((*OPTIONS, "swaps"), "error: artifacts/models/smollm2_135m/provenance.json: no such file; run the stage"),
    ],
)
def test_a_fault_is_one_line_on_standard_error_and_status_2(stage, options, line):
    status, output, errors = stage("refine", *options)
    assert status == 2
    assert output == ""
    assert errors.startswith(line)
    assert errors.count("\n") == 1


def test_the_traceback_is_there_when_asked_for(stage):
    status, _, errors = stage("refine", *OPTIONS, "swap", "--traceback")
    assert status == 2
    assert "Traceback" in errors


def test_an_unusable_environment_variable_is_one_line(stage):
    status, _, errors = stage("refine", *OPTIONS, "swaps", PRUNELIB_THREADS="none")
    assert status == 2
    assert errors.startswith("error: environment variable PRUNELIB_THREADS='none': ")


def test_help_says_what_the_stage_does_and_takes(stage):
    status, output, _ = stage("warmstart", "--help")
    assert status == 0
    assert "keep the highest in each group" in " ".join(output.split())
    assert "--pattern NAME" in output
    assert "a name under patterns in params.yaml" in output


@pytest.mark.parametrize("name", ["warmstart", "refine"])
def test_stages_that_run_no_model_do_not_import_transformers(name):
    script = ROOT / "stages" / f"{name}.py"
    loaded = f"import runpy, sys; runpy.run_path({str(script)!r}); sys.exit('transformers' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", loaded], env=environment, check=False).returncode == 0
