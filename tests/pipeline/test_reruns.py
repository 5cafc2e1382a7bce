"""What DVC reruns when something changes, and what it shares: real DVC processes over a tiny model."""

import json
import shutil
import subprocess

import pytest
from pipeline_project import EVERYTHING, Project

pytestmark = pytest.mark.slow


def test_a_second_run_runs_nothing(project):
    assert project.repro() == []


def test_the_results_say_what_refinement_did(finished):
    def cell(name):
        return json.loads((finished.folder / "results" / "cells" / "tiny" / f"{name}.json").read_text())

    assert cell("dense")["sparsity"] < 0.01
    for pattern in ("row50", "nm24"):
        start, refined = cell(f"0/{pattern}-wanda-none"), cell(f"0/{pattern}-wanda-swaps")
        assert start["sparsity"] == refined["sparsity"] == pytest.approx(0.5, abs=0.01)
        assert start["error_reduction"] == 0 < refined["error_reduction"] < 1
        assert refined["relative_error"] < start["relative_error"]
        assert set(refined["perplexity"]) == {"ours", "theirs"}
        assert refined["perplexity"]["ours"]["tokens"] == 15 * refined["perplexity"]["ours"]["windows"] > 0
        assert set(refined["samples"]) == {"a cat"}
    page = (finished.folder / "reports" / "report.html").read_text()
    assert "a cat …" in page
    assert "50% per row" in page
    assert "2:4" in page


def test_another_setting_of_a_pattern_reruns_its_cells_alone(project):
    project.edit("patterns.row50.sparsity", 0.25)
    ran = project.repro()
    assert set(ran) == {name for name in EVERYTHING if "row50" in name} | {"report"}


def test_an_added_pattern_runs_its_cells_alone_and_a_removed_one_only_the_report(project):
    project.edit("patterns.row75", {"kind": "per_row", "sparsity": 0.75})
    assert project.repro() == []
    project.edit("grid.patterns", ["row50", "nm24", "row75"])
    cells = {name.replace("row50", "row75") for name in EVERYTHING if "row50" in name}
    assert set(project.repro()) == cells | {"report"}
    project.edit("grid.patterns", ["nm24"])
    assert project.repro() == ["report"]
    assert "row50" not in (project.folder / "reports" / "results.csv").read_text()
    project.commit("without row50")
    shutil.rmtree(project.folder / "results")  # a clone has what the cache holds of the grid
    project.command("dvc", "checkout")
    assert project.repro() == []
    assert project.command("git", "status", "--short") == ""


def test_another_refiner_setting_reruns_that_refiner_alone(project):
    project.edit("refiners.swaps.max_swaps", 1)
    ran = set(project.repro())
    assert ran == {name for name in EVERYTHING if name.endswith("swaps")} | {"report"}


def test_an_added_seed_calibrates_once_more_and_reruns_nothing_else(project):
    project.edit("grid.seeds", [0, 1])
    seeded = {name for name in EVERYTHING if "@tiny-0" in name}
    assert set(project.repro()) == {name.replace("@tiny-0", "@tiny-1") for name in seeded} | {"report"}


def test_another_calibration_reruns_what_follows_it(project):
    project.edit("calibration.samples", 5)
    ran = set(project.repro())
    assert ran >= {name for name in EVERYTHING if name.split("@")[0] in {"calibrate", "warmstart", "refine", "report"}}
    assert not any(name.startswith("download") for name in ran)


@pytest.mark.parametrize(
    ("key", "value"), [("evaluation.perplexity.tokens", 32), ("evaluation.samples.prompts", ["a dog"])]
)
def test_another_evaluation_reruns_no_refinement(project, key, value):
    project.edit(key, value)
    assert {name.split("@")[0] for name in project.repro()} == {"evaluate", "evaluate_dense", "report"}


def test_going_back_to_settings_that_ran_before_computes_nothing(project):
    before = project.outcomes("artifacts", "results")
    project.edit("refiners.swaps.max_swaps", 1)
    project.repro()
    project.edit("refiners.swaps.max_swaps", None)
    output = project.command("dvc", "repro")
    assert "is cached - skipping run" in output
    assert "> python -m stages.refine" not in output
    assert project.outcomes("artifacts", "results") == before


def test_a_fresh_clone_with_the_remote_gets_the_report_without_computing(finished, tmp_path):
    subprocess.run(["git", "clone", "--quiet", finished.folder, tmp_path / "clone"], check=True)
    clone = Project(tmp_path / "clone")
    assert clone.files("reports").keys() >= {"reports/report.html", "reports/results.md"}
    assert clone.repro("--pull", "--allow-missing") == []
    assert clone.repro("--pull") == ["download_model@tiny"]  # dense weights are fetched from where they come from
    assert clone.files("artifacts", "reports") == finished.files("artifacts", "reports")
    assert clone.outcomes("results") == finished.outcomes("results")


def test_metrics_and_plots_show_the_grid(project):
    shown = json.loads(project.command("dvc", "metrics", "show", "--json"))
    cells = shown[""]["data"]["reports/metrics.json"]["data"]
    assert len(shown[""]["data"]) == 1
    assert len(cells) == 5
    assert cells["tiny-dense"]["perplexity_ours"] > 1
    project.edit("refiners.swaps.max_swaps", 1)
    project.repro()
    changed = json.loads(project.command("dvc", "metrics", "diff", "--json"))
    assert "tiny-0-row50-wanda-swaps" in json.dumps(changed)
    assert "relative_error" in json.dumps(changed)
    plots = json.loads(project.command("dvc", "plots", "show", "--json"))
    assert len(plots["data"]) == 3
    for drawn in plots["data"].values():
        assert drawn
