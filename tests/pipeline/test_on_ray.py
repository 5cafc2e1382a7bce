"""Stages on Ray: the files are those that one process makes, and a fault is one line."""

import contextlib
import importlib.util
import signal
import subprocess
import time

import psutil
import pytest
from pipeline_project import ARGUMENTS, OUTPUTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'prunelib[ray]'"
    ),
]


@pytest.fixture(scope="module")
def sharded(finished, tmp_path_factory):
    """The project calibrated in two shards, in one process."""
    project = finished.copy(tmp_path_factory.mktemp("sharded") / "project")
    project.edit("calibration.shards", 2)
    project.repro()
    return project


@pytest.mark.parametrize("stage", ["calibrate", "refine", "evaluate"])
def test_a_stage_on_ray_makes_the_same_files(sharded, tmp_path, monkeypatch, stage):
    project = sharded.copy(tmp_path / "project")
    expected = project.files(*OUTPUTS[stage])
    for name in expected:
        if stage == "calibrate" or "row50-wanda-swaps" in name:
            (project.folder / name).unlink()
    assert project.files(*OUTPUTS[stage]) != expected
    monkeypatch.setenv("RAY_ADDRESS", "local")
    project.command("python", f"stages/{stage}.py", *ARGUMENTS[stage])
    assert project.files(*OUTPUTS[stage]) == expected
    assert [file.name for file in (project.folder / "scratch").iterdir() if file.suffix != ".lock"] == []


def test_shards_are_part_of_the_experiment(finished, sharded):
    one, two = (project.files(*OUTPUTS["calibrate"]) for project in (finished, sharded))
    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one if "block_" in name)


def test_a_fault_on_ray_is_one_line(sharded, tmp_path, monkeypatch):
    project = sharded.copy(tmp_path / "project")
    (project.folder / "artifacts/refined/tiny/0/row50-wanda-swaps/masks.safetensors").unlink()
    monkeypatch.setenv("RAY_ADDRESS", "local")
    said = project.command("python", "stages/evaluate.py", *ARGUMENTS["evaluate"], fails=True)
    assert "error: artifacts/refined/tiny/0/row50-wanda-swaps/masks.safetensors: no such file" in said
    assert "Traceback" not in said


def test_an_interrupt_leaves_no_process_behind(sharded, tmp_path, monkeypatch):
    project = sharded.copy(tmp_path / "project")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    stopped = any(interrupted(project) for _ in range(5))  # some are through before the interrupt comes
    assert stopped


def interrupted(project):
    """Interrupt refinement while a worker works; whether that stopped it. No process is left either way."""
    words = ["python", "stages/refine.py", *ARGUMENTS["refine"]]
    slowly = project.environment | {"PRUNELIB_ENGINE": "reference"}
    with subprocess.Popen(words, cwd=project.folder, env=slowly, stderr=subprocess.PIPE) as stage:
        started = children(stage)
        while not any(name.startswith("ray::_call") for name in names(started)):
            assert stage.poll() is None
            time.sleep(0.05)
            started = children(stage)
        stage.send_signal(signal.SIGINT)
        stage.communicate()
    assert psutil.wait_procs(started, timeout=30)[1] == []
    return stage.returncode != 0


def children(stage):
    return psutil.Process(stage.pid).children(recursive=True)


def names(processes):
    """What processes that still run call themselves."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found += process.cmdline()[:1]
    return found
