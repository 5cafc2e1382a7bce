"""The real model on a reduced grid, from nothing to a report: what a newcomer's first run does."""

import json
import shutil

import pytest
import torch
from pipeline_project import ROOT, Project
from ruamel.yaml import YAML

from prunelib import read_masks
from prunelib.calibration.windows import tokenize
from prunelib.evaluation.held_out import held_out_texts, held_out_windows
from prunelib.model.structure import load_model, load_tokenizer
from prunelib.params import load_params
from prunelib.pruning.in_memory import prune
from prunelib.records import read_layers
from prunelib.runtime.machine import available_cores
from prunelib.runtime.store import read_provenance
from prunelib.sources.documents import read_documents

pytestmark = pytest.mark.e2e


SECOND_RUN = [f"{stage}@smollm2_135m-0-nm24-wanda-swaps_updated" for stage in ("refine", "evaluate")]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The project after its first run."""
    project = Project(tmp_path_factory.mktemp("real") / "project", threads=available_cores(), forks=False)
    project.folder.mkdir()
    for name in ("stages", "prunelib"):
        shutil.copytree(ROOT / name, project.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, project.folder / name)
    project.edit("grid.patterns", ["row60", "nm24"])
    project.edit("grid.warmstarts", ["wanda"])
    project.edit("grid.refiners", ["none", "swaps"])
    project.edit("calibration.samples", 16)
    project.edit("evaluation.perplexity.tokens", 2048)
    project.edit("evaluation.tasks.limit", 2)
    project.edit("evaluation.samples.tokens", 8)
    project.command("dvc", "init", "--no-scm", "--quiet")
    project.repro()
    return project


@pytest.fixture(scope="module")
def second(first):
    """The project after a second run, with one refiner more and one pattern less; the first one's cells go on in it."""
    first.edit("grid.patterns", ["nm24"])
    first.edit("grid.refiners", ["none", "swaps", "swaps_updated"])
    first.edit("refiners.swaps_updated", {"chain": ["sparseswaps", {"method": "least_squares", "iterations": 10}]})
    return first, first.repro()


def cell(project, name):
    return json.loads((project.folder / "results" / "cells" / "smollm2_135m" / f"{name}.json").read_text())


def test_the_dense_model_is_the_real_one(first):
    dense = cell(first, "dense")
    assert dense["sparsity"] < 0.01
    assert 15 < dense["perplexity"]["sotu"]["value"] < 30
    assert 15 < dense["perplexity"]["wikipedia"]["value"] < 30
    assert dense["tasks"]["piqa"]["items"] == 2


@pytest.mark.parametrize(("pattern", "sparsity"), [("row60", 0.6), ("nm24", 0.5)])
def test_refinement_lowers_error_and_perplexity(first, pattern, sparsity):
    dense, start, refined = (
        cell(first, name) for name in ("dense", f"0/{pattern}-wanda-none", f"0/{pattern}-wanda-swaps")
    )
    assert start["sparsity"] == pytest.approx(sparsity, abs=0.005)
    assert refined["sparsity"] == pytest.approx(sparsity, abs=0.005)
    assert refined["error_reduction"] > 0.2
    for text in ("wikipedia", "sotu"):
        values = [each["perplexity"][text]["value"] for each in (dense, refined, start)]
        assert values == sorted(values)


def test_every_row_of_every_matrix_is_at_its_optimum(first):
    path = first.folder / "results" / "layers" / "smollm2_135m" / "0" / "row60-wanda-swaps.json"
    layers = read_layers(path, expected={}).layers
    assert len(layers) == 210
    for layer in layers:
        assert layer.optimal_rows == layer.rows
        assert layer.loss_after < layer.loss_before < layer.energy
        assert layer.kept == layer.rows * (layer.inputs - int(layer.inputs * 3 / 5))


def test_the_call_gives_the_masks_of_the_stages(first):
    params, artifacts = load_params(first.folder / "params.yaml"), first.folder / "artifacts"
    folder, calibration = artifacts / "models" / "smollm2_135m", params.calibration
    documents = [document.text for document in read_documents(artifacts / "texts" / calibration.text, "calibration")]
    result = prune(
        load_model(folder, params.models["smollm2_135m"].dtype, "cpu"),
        load_tokenizer(folder),
        documents,
        params.patterns["row60"],
        params.warmstarts["wanda"],
        params.refiners["swaps"],
        samples=calibration.samples,
        length=calibration.length,
        batch=calibration.batch,
        progress=False,
    )
    refined = artifacts / "refined" / "smollm2_135m" / "0" / "row60-wanda-swaps" / "masks.safetensors"
    expected = read_masks(refined)
    assert result.masks.keys() == expected.keys()
    assert all(torch.equal(mask, expected[layer]) for layer, mask in result.masks.items())
    made_from = read_provenance(refined, "mask")
    assert result.provenance.items() <= made_from.items()


def test_the_text_that_is_evaluated_shares_no_passage_with_any_calibration_document(first):
    """No 32 tokens in a row of the default's evaluation windows, on either text, stand in the calibration split."""
    params = load_params(ROOT / "params.yaml")
    folders = {text: first.folder / "artifacts" / "texts" / text for text in params.grid.texts}
    tokenizer = load_tokenizer(first.folder / "artifacts" / "models" / "smollm2_135m")
    texts = held_out_texts(folders, params.calibration.text)
    evaluated = held_out_windows(texts, tokenizer, params.evaluation.perplexity)
    documents = read_documents(folders[params.calibration.text], "calibration")
    calibration = tokenize([document.text for document in documents], tokenizer)
    seen = set(map(tuple, calibration.unfold(0, 32, 1).tolist()))
    assert len(seen) > 400_000
    for windows in evaluated.values():
        assert windows.numel() == 8192
        assert not seen & set(map(tuple, windows.flatten().unfold(0, 32, 1).tolist()))


def test_the_report_holds_every_cell(first):
    table = (first.folder / "reports" / "results.csv").read_text()
    assert len(table.splitlines()) == 1 + 1 + 4
    assert "<svg" in (first.folder / "reports" / "report.html").read_text()


def test_a_changed_grid_runs_what_is_new(second):
    project, ran = second
    assert ran == [*SECOND_RUN, "report"]
    table = (project.folder / "reports" / "results.csv").read_text()
    assert len(table.splitlines()) == 1 + 1 + 3


def test_weights_that_move_lower_both_further(second):
    project, _ = second
    alone, updated = (cell(project, f"0/nm24-wanda-{refiner}") for refiner in ("swaps", "swaps_updated"))
    assert updated["sparsity"] == pytest.approx(alone["sparsity"], abs=1e-4)
    assert updated["relative_error"] < 0.95 * alone["relative_error"]
    for text in ("wikipedia", "sotu"):
        assert updated["perplexity"][text]["value"] < alone["perplexity"][text]["value"]


def test_the_committed_record_agrees_with_the_committed_settings():
    locked = YAML(typ="safe").load((ROOT / "dvc.lock").read_text())["stages"]
    assert "report" in locked
    assert Project(ROOT, forks=False).repro("--dry", "--allow-missing") == []
