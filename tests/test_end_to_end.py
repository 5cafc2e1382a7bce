"""The real model on a reduced grid, from nothing to a report: what a newcomer's first run does."""

import json
import shutil

import pytest
from pipeline_project import ROOT, Project
from ruamel.yaml import YAML

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("real") / "project")
    project.folder.mkdir()
    for name in ("stages", "prunelib"):
        shutil.copytree(ROOT / name, project.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, project.folder / name)
    project.edit("grid.patterns", ["row60", "nm24"])
    project.edit("grid.warmstarts", ["wanda"])
    project.edit("calibration.samples", 16)
    project.edit("evaluation.perplexity.tokens", 2048)
    project.edit("evaluation.tasks.limit", 8)
    project.command("dvc", "init", "--no-scm", "--quiet")
    project.repro()
    return project


def cell(project, name):
    return json.loads((project.folder / "results" / "cells" / "smollm2_135m" / f"{name}.json").read_text())


def test_the_dense_model_is_the_real_one(finished):
    dense = cell(finished, "dense")
    assert dense["sparsity"] < 0.01
    assert 15 < dense["perplexity"]["sotu"]["value"] < 30
    assert 15 < dense["perplexity"]["wikipedia"]["value"] < 30
    assert dense["tasks"]["piqa"]["items"] == 8


@pytest.mark.parametrize(("pattern", "sparsity"), [("row60", 0.6), ("nm24", 0.5)])
def test_refinement_lowers_error_and_perplexity(finished, pattern, sparsity):
    dense, start, refined = (
        cell(finished, name) for name in ("dense", f"{pattern}-wanda-none", f"{pattern}-wanda-swaps")
    )
    assert start["sparsity"] == pytest.approx(sparsity, abs=0.005)
    assert refined["sparsity"] == pytest.approx(sparsity, abs=0.005)
    assert refined["error_reduction"] > 0.2
    for text in ("wikipedia", "sotu"):
        values = [each["perplexity"][text]["value"] for each in (dense, refined, start)]
        assert values == sorted(values)


def test_every_row_of_every_matrix_is_at_its_optimum(finished):
    layers = json.loads(
        (finished.folder / "results" / "layers" / "smollm2_135m" / "row60-wanda-swaps.json").read_text()
    )
    assert len(layers) == 210
    for layer in layers:
        assert layer["optimal_rows"] == layer["rows"]
        assert layer["loss_after"] < layer["loss_before"] < layer["energy"]
        assert layer["kept"] == layer["rows"] * (layer["inputs"] - int(layer["inputs"] * 3 / 5))


def test_calibration_and_held_out_text_share_no_passage(finished):
    """No run of 32 words of the calibration documents stands in the held-out ones."""

    def passages(split):
        path = finished.folder / "artifacts" / "texts" / "wikipedia" / f"{split}.jsonl"
        words = [json.loads(line)["text"].split() for line in path.read_text(encoding="utf-8").splitlines()]
        return {tuple(each[i : i + 32]) for each in words for i in range(len(each) - 31)}

    assert not passages("calibration") & passages("held_out")


def test_the_report_holds_every_cell(finished):
    table = (finished.folder / "reports" / "results.csv").read_text()
    assert len(table.splitlines()) == 1 + 1 + 4
    assert "<svg" in (finished.folder / "reports" / "report.html").read_text()


def test_the_committed_record_agrees_with_the_committed_settings():
    locked = YAML(typ="safe").load((ROOT / "dvc.lock").read_text())["stages"]
    output = Project(ROOT).command("dvc", "repro", "--dry", "--allow-missing")
    assert "report" in locked
    assert "Running stage" not in output
