"""Stages on Ray: the files are those that one process makes, and a fault is one line."""

import contextlib
import importlib.util
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from pipeline_project import ARGUMENTS, OUTPUTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install -e '.[ray]'"),
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
    expected = take_outputs(project, stage)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    project.command("python", f"stages/{stage}.py", *ARGUMENTS[stage])
    assert project.files(*OUTPUTS[stage]) == expected
    assert [file.name for file in (project.folder / "scratch").iterdir() if file.suffix != ".lock"] == []


def take_outputs(project, stage):
    """Remove what a stage has made; the files that its folders held."""
    files = project.files(*OUTPUTS[stage])
    for name in files:
        if stage == "calibrate" or "row50-wanda-swaps" in name:
            (project.folder / name).unlink()
    assert project.files(*OUTPUTS[stage]) != files
    return files


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


@pytest.fixture
def guarded(monkeypatch):
    """The address of a cluster that demands the token in a new home folder, which holds all files of Ray too.

    Ray's sockets need a short path.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        monkeypatch.setenv("HOME", home)
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        ray = Path(sys.executable).with_name("ray")
        subprocess.run([ray, "get-auth-token", "--generate"], stdout=subprocess.DEVNULL, check=True)
        where = ("--node-ip-address", "127.0.0.1", "--port", "0", "--temp-dir", home)
        words = (ray, "start", "--head", *where, "--num-cpus", "2", "--include-dashboard", "false", "--block")
        node = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            address = Path(home, "ray_current_cluster")
            while not (address.exists() and address.read_text()):
                assert node.poll() is None
                time.sleep(0.05)
            yield address.read_text()
        finally:
            node.terminate()
            node.wait()
            kill_all("HOME", home)


def test_a_cluster_that_demands_a_token(sharded, tmp_path, monkeypatch, guarded):
    project = sharded.copy(tmp_path / "project")
    expected = take_outputs(project, "refine")
    words = ("python", "stages/refine.py", *ARGUMENTS["refine"])
    monkeypatch.setenv("RAY_ADDRESS", guarded)
    with monkeypatch.context() as hasty:
        hasty.setenv("RAY_NUM_REDIS_GET_RETRIES", "1")  # else Ray asks twenty times, a second apart
        said = project.command(*words, fails=True)
    assert f"error: RAY_ADDRESS={guarded}: the cluster's token is missing or refused; set RAY_AUTH_MODE=token" in said
    assert "Traceback" not in said
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    project.command(*words)
    assert project.files(*OUTPUTS["refine"]) == expected


ENDLESS = """

_as_it_is = sparseswaps


def sparseswaps(*arguments, **more):
    from pathlib import Path

    import ray

    if not ray.is_initialized():  # the stage compiles kernels before there are tasks
        return _as_it_is(*arguments, **more)
    Path("at-work").touch()
    while True:
        pass


METHOD = replace(METHOD, refine=sparseswaps)
"""
"""A refiner that says when a task is at work, and is never through: an interrupt cannot come too late."""


HEEDING = [
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])",
]
"""Runs a command that heeds interrupts: in the background of a shell these are ignored, in all processes below too."""


def test_an_interrupt_leaves_no_process_behind(sharded, tmp_path, monkeypatch):
    project = sharded.copy(tmp_path / "project")
    with (project.folder / "prunelib" / "refiners" / "sparseswaps.py").open("a") as method:
        method.write(ENDLESS)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    words = ["python", "stages/refine.py", *ARGUMENTS["refine"]]
    try:
        with subprocess.Popen([*HEEDING, *words], cwd=project.folder, env=project.environment) as stage:
            while not (project.folder / "at-work").exists():
                assert stage.poll() is None
                time.sleep(0.05)
            stage.send_signal(signal.SIGINT)
        assert stage.returncode == 128 + signal.SIGINT
        last = time.monotonic() + 600  # no machine is so busy: what still runs then was left behind
        while running("PYTHONPATH", str(project.folder)):
            assert time.monotonic() < last
            time.sleep(0.05)
    finally:
        kill_all("PYTHONPATH", str(project.folder))


def running(name, value):
    """The processes with a variable in their environment, whoever their parents are by now."""
    known = psutil.process_iter(["environ"])
    return [process for process in known if (process.info["environ"] or {}).get(name) == value]


def kill_all(name, value):
    for process in running(name, value):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
