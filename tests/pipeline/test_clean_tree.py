"""A run changes nothing that git holds but its own times, on any machine of the same kind."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline_project import Project

pytestmark = pytest.mark.slow

COSTS = {"reports/timing.csv", "reports/report.html"}


@pytest.fixture(scope="module")
def clone(finished, tmp_path_factory):
    """A clone of a project that has run, without its cache, in which everything has run again."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    finished.command("git", "clone", "--quiet", ".", str(folder))
    clone = Project(folder)
    clone.said = clone.command("prunelib", "run")
    return clone


def test_two_clones_differ_in_their_times_alone(finished, clone):
    folders = ("artifacts", "results", "reports")
    assert clone.outcomes(*folders) == finished.outcomes(*folders)
    changed = {line[3:] for line in clone.command("git", "status", "--porcelain").splitlines()}
    assert "reports/timing.csv" in changed
    assert changed <= COSTS


def test_a_second_run_changes_nothing(clone):
    before = clone.files("artifacts", "results", "reports")
    assert "Running stage" not in clone.command("prunelib", "run")
    assert clone.files("artifacts", "results", "reports") == before


def test_the_run_counts_its_stages_and_ends_with_the_main_figures(clone):
    lines = clone.said.splitlines()
    begun = [line for line in lines if line.startswith("[")]
    assert [line.partition("]")[0] for line in begun] == [f"[{number}/18" for number in range(1, 19)]
    assert begun[-1] == "[18/18] Running stage 'report':"
    assert lines[-1] == "The whole report: reports/report.html"
    (table,) = [number for number, line in enumerate(lines) if "Refiner" in line]
    assert sum("swaps" in line for line in lines[table:]) == 2


def test_the_environment_need_not_be_activated(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    (project.folder / "reports" / "layers.csv").unlink()
    words, environment = [Path(sys.executable).parent / "prunelib", "run"], project.environment | {"PATH": os.defpath}
    done = subprocess.run(words, cwd=project.folder, env=environment, capture_output=True, text=True, check=False)
    assert "[18/18] Running stage 'report':" in done.stdout
    assert done.returncode == 0, done.stderr


def test_times_that_are_not_of_these_masks_are_left_out(finished, tmp_path):
    project = finished.copy(tmp_path / "project")

    def timed():
        rows = csv.DictReader((project.folder / "reports" / "timing.csv").read_text().splitlines())
        return {row["cell"]: bool(row["seconds"]) for row in rows}

    assert all(timed().values())
    project.edit("refiners.swaps.max_swaps", 1)
    project.command("prunelib", "run")
    assert all(timed().values())
    project.edit("refiners.swaps.max_swaps", None)
    project.command("prunelib", "run")  # from the run cache
    assert timed() == {name: name.endswith("none") for name in timed()}


def test_a_stage_that_fails_ends_the_run_with_its_line_and_no_table(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    project.edit("calibration.length", 1000)
    said = project.command("prunelib", "run", fails=True)
    assert said.count("error: ") == 1
    assert "Running stage 'warmstart" not in said
    assert "report.html" not in said


def test_a_folder_without_dvc_is_one_line(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    shutil.rmtree(project.folder / ".dvc")
    said = project.command("prunelib", "run", fails=True)
    assert said.startswith("error: you are not inside of a DVC repository")
    assert said.count("\n") == 1


def test_a_fault_in_params_yaml_is_one_line(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    project.edit("grid.patterns", ["row51"])
    said = project.command("prunelib", "run", fails=True)
    assert said.startswith("error: params.yaml: grid.patterns: unknown name 'row51'")
    assert said.count("\n") == 1
