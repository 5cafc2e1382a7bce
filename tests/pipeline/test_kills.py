"""Stages that are killed at any moment and started again, with a tiny model: the end is that of an undisturbed run."""

import contextlib
import random
import signal
import subprocess
import time

import pytest
from pipeline_project import ARGUMENTS, OUTPUTS

pytestmark = pytest.mark.slow

KILLS = 4


@pytest.fixture(scope="module")
def propagated(finished, tmp_path_factory):
    """The project with inputs that pruned blocks leave."""
    project = finished.copy(tmp_path_factory.mktemp("propagated") / "project")
    project.edit("calibration.inputs", "sequential")
    project.repro("refine@tiny-0-row50-wanda-swaps")
    return project


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


def holds(project, stage, running):
    """Whether a process has begun to work; the note of one that was killed stays until the next."""
    notes = (project.folder / "scratch").glob(f"{stage}-*.holder")
    with contextlib.suppress(FileNotFoundError):
        return any(note.read_text() == f"process {running.pid}\n" for note in notes)
    return False


def saved_states(project, stage):
    return list((project.folder / "scratch").glob(f"{stage}-*/**/states.safetensors"))


def kill_at_random(project, stage, draw, saving=False):
    """Start a stage and kill it some time after it has begun to work; whether it was still running then.

    With ``saving`` not before states stand in its folder.
    """
    with start(project, stage, saving) as running:
        while not holds(project, stage, running) and running.poll() is None:
            time.sleep(0.001)
        while saving and not saved_states(project, stage) and running.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.1 if saving else 0.4))
        running.send_signal(signal.SIGKILL)
        return running.wait() == -signal.SIGKILL


def killed_ones_end_as(project, stage, seed, saving=False):
    expected = project.files(*OUTPUTS[stage])
    draw, kills = random.Random(seed), 0  # noqa: S311 - no secret
    for _ in range(KILLS):
        kills += kill_at_random(project, stage, draw, saving)
        assert project.files(*OUTPUTS[stage]).keys() >= expected.keys()
    project.command("python", f"stages/{stage}.py", *ARGUMENTS[stage])
    assert project.files(*OUTPUTS[stage]) == expected
    assert [file.name for file in (project.folder / "scratch").iterdir() if file.suffix != ".lock"] == []
    return kills


@pytest.mark.parametrize("stage", ["calibrate", "refine", "evaluate"])
def test_a_stage_that_is_killed_again_and_again_ends_the_same(project, stage):
    assert killed_ones_end_as(project, stage, seed=1) > 0


@pytest.mark.parametrize("saving", [False, True])
def test_so_does_refinement_on_the_inputs_that_come_about(propagated, saving):
    assert killed_ones_end_as(propagated, "refine", seed=2, saving=saving) > 0


def test_so_does_calibration_that_takes_up_saved_states(project):
    assert killed_ones_end_as(project, "calibrate", seed=3, saving=True) > 0


def test_states_in_another_dtype_are_not_taken_up(finished, tmp_path):
    stopped, fresh = (finished.copy(tmp_path / name) for name in ("stopped", "fresh"))
    assert kill_at_random(stopped, "calibrate", random.Random(4), saving=True)  # noqa: S311 - no secret
    for each in (stopped, fresh):
        each.edit("models.tiny.dtype", "bfloat16")
        each.command("python", "stages/calibrate.py", *ARGUMENTS["calibrate"])
    assert stopped.files(*OUTPUTS["calibrate"]) == fresh.files(*OUTPUTS["calibrate"])
    assert fresh.files(*OUTPUTS["calibrate"]) != finished.files(*OUTPUTS["calibrate"])


def test_propagated_masks_are_others_after_the_first_block(finished, propagated):
    dense, block = (project.files(*OUTPUTS["refine"]) for project in (finished, propagated))
    assert dense.keys() == block.keys()
    assert all(dense[name] != block[name] for name in dense if name.endswith("masks.safetensors"))


def test_two_at_once_do_not_get_in_each_others_way(project):
    expected = project.files(*OUTPUTS["refine"])
    with start(project, "refine") as one, start(project, "refine") as other:
        faults = [running.communicate()[1] for running in (one, other)]
    refused = [fault for fault in faults if fault.startswith("error: refine-tiny-0-row50-wanda-swaps: process ")]
    assert len(refused) == [one.returncode, other.returncode].count(2)
    assert project.files(*OUTPUTS["refine"]) == expected
