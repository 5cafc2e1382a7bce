"""Stages that are killed at any moment and started again, with a tiny model: the end is that of an undisturbed run."""

import json
import signal
import subprocess
import sys
import time

import pytest
from pipeline_project import ARGUMENTS, OUTPUTS, ROOT

pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_kills_change_nothing():
    """Those that ``benchmarks/faults/kills.py`` begins with: all stages and commands, every signal, also on NFS."""
    words = [sys.executable, "benchmarks/faults/kills.py", "--kills", "100", "--dry"]
    ended = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


SAVING = """
import runpy, sys
from prunelib.model import blockwise
blockwise.SECONDS_BETWEEN_SAVES = 0
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a stage that saves the states after every block."""


def start(project, stage, saving=False):
    script = f"stages/{stage}.py"
    run = ["-c", f"import sys; sys.argv[0] = {script!r}{SAVING}"] if saving else [script]
    return subprocess.Popen(
        ["python", *run, *ARGUMENTS[stage]],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_once_states_are_saved(project, stage):
    """Whether the stage was still running then."""
    with start(project, stage, saving=True) as running:
        scratch, states = project.folder / "scratch", "states.safetensors"
        while not [*scratch.glob(f"{stage}-*/{states}"), *scratch.glob(f"{stage}-*/*/{states}")]:
            if running.poll() is not None:
                break
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
        return running.wait() == -signal.SIGKILL


def test_states_in_another_dtype_are_not_taken_up(finished, tmp_path):
    stopped, fresh = (finished.copy(tmp_path / name) for name in ("stopped", "fresh"))
    assert kill_once_states_are_saved(stopped, "calibrate")
    for each in (stopped, fresh):
        each.edit("models.tiny.dtype", "bfloat16")
        each.command("python", "stages/calibrate.py", *ARGUMENTS["calibrate"])
    assert stopped.files(*OUTPUTS["calibrate"]) == fresh.files(*OUTPUTS["calibrate"])
    assert fresh.files(*OUTPUTS["calibrate"]) != finished.files(*OUTPUTS["calibrate"])


def test_blocks_refined_on_other_calibration_inputs_are_not_taken_up(finished, tmp_path):
    stopped, fresh = (finished.copy(tmp_path / name) for name in ("stopped", "fresh"))
    stopped.edit("calibration.inputs", "sequential")
    stopped.repro("warmstart@tiny-0-row50-wanda")
    assert kill_once_states_are_saved(stopped, "refine")
    for each in (stopped, fresh):
        each.edit("calibration.inputs", "true_sequential")
        each.repro("refine@tiny-0-row50-wanda-swaps")
    assert stopped.files(*OUTPUTS["refine"]) == fresh.files(*OUTPUTS["refine"])


def test_propagated_masks_are_others_after_the_first_block(finished, project):
    project.edit("calibration.inputs", "sequential")
    project.repro("refine@tiny-0-row50-wanda-swaps")
    dense, block = (each.files(*OUTPUTS["refine"]) for each in (finished, project))
    assert dense.keys() == block.keys()
    assert all(dense[name] != block[name] for name in dense if name.endswith("masks.safetensors"))


DECIDES = """
import json, runpy, sys
from prunelib.runtime import resume
def stop(name, decides):
    print(json.dumps(decides))
    sys.exit()
resume.resumable = stop
sys.argv[0] = f"stages/{sys.argv.pop(1)}.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a stage until it looks for finished parts, and prints what decides whether they are its own."""


def decides(project, stage):
    return json.loads(project.command("python", "-c", DECIDES, stage, *ARGUMENTS[stage]).splitlines()[-1])


def rewrite(file, change):
    """Change a JSON file that may be a link into DVC's cache."""
    value = json.loads(file.read_text())
    change(value)
    file.unlink()
    file.write_text(json.dumps(value))


def test_another_tokenizer_makes_another_evaluation(project):
    before = decides(project, "evaluate")
    vocabulary = {"a": 4, "b": 3}
    rewrite(project.folder / "artifacts/models/tiny/tokenizer.json", lambda it: it["model"]["vocab"].update(vocabulary))
    assert differing(before, decides(project, "evaluate")) == {"tokenizer"}


def test_windows_with_bos_make_another_calibration(project):
    rewrite(project.folder / "artifacts/models/tiny/tokenizer_config.json", lambda it: it.update(bos_token="a"))  # noqa: S106 - no password
    before = decides(project, "calibrate")
    project.edit("models.tiny.bos_per_window", True)
    assert differing(before, decides(project, "calibrate")) == {"bos"}


def differing(before, after):
    return {key for key in before | after if before.get(key) != after.get(key)}


def test_two_at_once_do_not_get_in_each_others_way(project):
    expected = project.files(*OUTPUTS["refine"])
    with start(project, "refine") as one, start(project, "refine") as other:
        faults = [running.communicate()[1] for running in (one, other)]
    refused = [fault for fault in faults if fault.startswith("error: refine-tiny-0-row50-wanda-swaps: process ")]
    assert len(refused) == [one.returncode, other.returncode].count(2)
    assert project.files(*OUTPUTS["refine"]) == expected
