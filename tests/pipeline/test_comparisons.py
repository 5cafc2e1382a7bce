"""A comparison that is stopped goes on in any clone from the files of its finished cells: real DVC processes."""

import csv
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from pipeline_project import Project

from prunelib.runtime.hashing import sha256_file

pytestmark = pytest.mark.slow

GRIDS = [{"patterns": ["row50"], "refiners": ["swaps"]}]
COMPARE = ("prunelib", "compare", "one")
CELL = "tiny-0-row50-wanda-swaps"
FILES = ("tiny-dense.json", f"{CELL}.json")


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """A project whose comparison of two cells is finished and committed."""
    project = finished.copy(tmp_path_factory.mktemp("compared") / "project")
    project.edit("comparisons", {"one": {"grids": GRIDS}})
    project.command(*COMPARE)
    project.commit("a comparison")
    return project


@pytest.fixture
def clone(compared, tmp_path):
    """What git holds of it, and nothing else."""
    compared.command("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    return Project(tmp_path / "clone")


def cells(project):
    folder = project.folder / "reports" / "one" / "cells"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))}


def outcomes(project):
    """The tables of the report that are the same in every run."""
    passed_over = ("/cells/", "timing.csv", "report.html")
    known = project.files("reports/one").items()
    return {name: text for name, text in known if not any(part in name for part in passed_over)}


def ran(output):
    return [name for name in re.findall(r"Running stage '(.*)'", output) if name != "check"]


def row(project, cell):
    with (project.folder / "reports" / "one" / "results.csv").open() as stream:
        return next(row for row in csv.DictReader(stream) if row["cell"] == cell)


def test_a_finished_comparison_runs_nothing_in_a_clone(compared, clone):
    before = cells(clone)
    assert sorted(before) == sorted(FILES)
    shutil.rmtree(clone.folder / "reports" / "one" / "figures")
    (clone.folder / "reports" / "one" / "results.csv").unlink()
    output = clone.command(*COMPARE)
    assert ran(output) == []
    assert "2 of 2 cells are finished, 0 are left" in output
    assert cells(clone) == before
    assert outcomes(clone) == outcomes(compared)
    assert not (clone.folder / "scratch" / "compare-one").exists()
    assert not (clone.folder / "artifacts").exists()


def test_without_the_local_files_the_report_is_drawn_from_its_tables(compared, clone):
    shutil.rmtree(clone.folder / "given")
    clone.command("prunelib", "report", "one")
    assert outcomes(clone).keys() == outcomes(compared).keys()
    assert row(clone, CELL) == row(compared, CELL)


def test_the_report_of_what_is_finished_names_the_rest(clone):
    (clone.folder / "reports" / "one" / "cells" / FILES[1]).unlink()
    assert f"{CELL}: not finished, left out" in clone.command("prunelib", "report", "one")
    assert CELL not in (clone.folder / "reports" / "one" / "results.csv").read_text()


def test_a_killed_comparison_goes_on_in_a_clone(compared, clone, tmp_path):
    shutil.rmtree(clone.folder / "reports" / "one")
    kill_after_a_cell(clone)
    assert list(cells(clone)) == ["tiny-dense.json"]
    clone.commit("one cell")
    clone.command("git", "clone", "--quiet", ".", str(tmp_path / "other"))
    other = Project(tmp_path / "other")
    output = other.command(*COMPARE)
    assert "1 of 2 cells are finished, 1 are left" in output
    assert f"evaluate@{CELL}" in ran(output)
    assert not any(name.startswith("evaluate_dense") for name in ran(output))
    assert outcomes(other) == outcomes(compared)
    assert cells(other)["tiny-dense.json"] == cells(clone)["tiny-dense.json"]


def kill_after_a_cell(project):
    """Run the comparison and kill it with all its children as soon as a cell is finished."""
    running = subprocess.Popen(COMPARE, cwd=project.folder, env=project.environment, start_new_session=True)
    with running:
        while not cells(project):
            assert running.poll() is None
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)


def test_a_lock_file_that_was_half_written_loses_no_stage(compared, tmp_path):
    project = compared.copy(tmp_path / "project")
    (project.folder / "reports" / "one" / "cells" / FILES[1]).unlink()
    project.cut_off_lock("scratch/compare-one")
    output = project.command(*COMPARE)
    assert not any("evaluate" in name for name in ran(output))
    assert outcomes(project) == outcomes(compared)


def test_other_code_makes_a_cell_again_only_if_asked_to(compared, tmp_path):
    project = compared.copy(tmp_path / "project")
    before = cells(project)
    with (project.folder / "prunelib" / "evaluation" / "perplexity.py").open("a") as stream:
        stream.write("\nANOTHER = 1\n")
    output = project.command(*COMPARE)
    assert ran(output) == []
    assert "2 of 2 cells are finished (2 made by other code), 0 are left" in output
    assert cells(project) == before
    assert {name.split("@")[0] for name in ran(project.command(*COMPARE, "--renew"))} == {
        *("download_model", "download_text"),  # local files, fetched again whenever a cell is made
        *("evaluate_dense", "evaluate"),
    }
    assert "2 of 2 cells are finished, 0 are left" in project.command(*COMPARE)
    assert outcomes(project) == outcomes(compared)


def test_a_local_file_that_changed_makes_its_cells_again(compared, tmp_path):
    project = compared.copy(tmp_path / "project")
    before = row(project, CELL)
    path = project.folder / "given" / "theirs" / "0.txt"
    path.write_text(path.read_text()[::-1])
    output = project.command(*COMPARE)
    assert f"{CELL}: made again for other settings: texts" in output
    after = row(project, CELL)
    assert after["perplexity_theirs"] != before["perplexity_theirs"]
    assert after["perplexity_ours"] == before["perplexity_ours"]


def test_given_masks_are_found_from_the_folder_of_the_project(compared, tmp_path):
    project = compared.copy(tmp_path / "project")
    path = shutil.copy(project.folder / "artifacts/warmstarts/tiny/0/row50-wanda.safetensors", project.folder / "mine")
    project.edit("warmstarts.mine", {"method": "given", "path": "mine", "sha256": sha256_file(path)})
    project.edit("comparisons.one.grids", [{"patterns": ["row50"], "warmstarts": ["mine"], "refiners": ["swaps"]}])
    project.command(*COMPARE)
    found, expected = row(project, "tiny-0-row50-mine-swaps"), row(compared, CELL)
    assert found["relative_error"] == expected["relative_error"]
    assert found["perplexity_ours"] == expected["perplexity_ours"]


def test_a_damaged_file_is_one_line_before_any_work(clone):
    path = clone.folder / "reports" / "one" / "cells" / FILES[1]
    path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    for command in (COMPARE, ("prunelib", "report", "one")):
        output = clone.command(*command, fails=True)
        assert output.startswith(f"error: reports/one/cells/{FILES[1]}: ")
        assert output.count("\n") == 1
