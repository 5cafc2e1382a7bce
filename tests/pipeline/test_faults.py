"""Faults, kills and commands, with real DVC processes over a tiny model."""

import os
import re
import signal
import subprocess
import time

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.slow

CELL = ("--model", "tiny", "--seed", "0", "--warmstart", "wanda", "--refiner", "swaps")


def test_a_fault_is_one_line_and_loses_nothing(project):
    before = project.files("artifacts", "results", "reports")
    project.edit("patterns.odd", {"kind": "n_of_m", "keep": 2, "group": 5})
    project.edit("grid.patterns", ["row50", "nm24", "odd"])
    output = project.command("dvc", "repro", fails=True)
    assert (
        "error: model.layers.0.self_attn.q_proj: pattern 2:5: group 5 does not divide the layer's 32 inputs" in output
    )
    assert "Traceback" not in output
    assert project.files("artifacts", "results", "reports") == before
    project.edit("grid.patterns", ["row50", "nm24"])
    assert project.repro() == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"calibration.samples": 5, "patterns.row50.sparsity": 1.5},
            "patterns.row50.per_row.sparsity = 1.5: Input should be less than 1",
        ),
        ({"grid.texts": ["../../precious"]}, "grid.texts"),
        ({"grid.seeds": ["0; touch ran;"]}, "grid.seeds"),
        (
            {"models": {"a;touch ran;#": {"source": "local", "path": "given/model"}}, "grid.models": ["a;touch ran;#"]},
            "grid.models",
        ),
        (
            {"models.tiny.path": "artifacts/models/tiny"},
            "models.tiny: artifacts/models/tiny lies in artifacts/",
        ),
    ],
    ids=["value", "path", "word of the shell in a number", "word of the shell in a name", "source among outputs"],
)
def test_params_are_refused_before_any_work(project, changes, line):
    (project.folder / "precious").mkdir()
    (project.folder / "precious" / "notes.txt").write_text("in no cache\n")
    for key, value in changes.items():
        project.edit(key, value)
    before = project.files("artifacts", "given", "precious", "results")
    output = project.command("dvc", "repro", fails=True)
    assert f"error: params.yaml: {line}" in output or f"error: {line}" in output
    assert output.count("Running stage") == 1
    assert "Traceback" not in output
    assert not (project.folder / "ran").exists()
    kept = {name: content for name, content in before.items() if not name.startswith("artifacts/code/")}
    assert project.files("artifacts", "given", "precious", "results") == kept  # without those of the stage that refuses


def test_a_foreign_artifact_is_refused(project):
    masks = project.folder / "artifacts" / "warmstarts" / "tiny" / "0"
    words = ("python", "stages/refine.py", *CELL, "--pattern")
    before = project.files("artifacts", "results")
    other = (masks / "nm24-wanda.safetensors").read_bytes()
    (masks / "row50-wanda.safetensors").unlink()
    (masks / "row50-wanda.safetensors").write_bytes(other)
    assert "error: " in (output := project.command(*words, "row50", fails=True))
    assert "its pattern is" in output
    (masks / "row50-wanda.safetensors").write_bytes(other[: len(other) // 2])
    assert "truncated, damaged or not a safetensors file" in project.command(*words, "row50", fails=True)
    (masks / "row50-wanda.safetensors").unlink()
    assert "no such file; run the stage that makes it" in project.command(*words, "row50", fails=True)
    (masks / "row50-wanda.safetensors").write_bytes(before["artifacts/warmstarts/tiny/0/row50-wanda.safetensors"])
    assert project.files("artifacts", "results") == before


@pytest.mark.parametrize(
    ("key", "value", "stage", "line"),
    [
        ("calibration.samples", 1000, "calibrate", "error: calibration.samples = 1000: the text has"),
        (
            "calibration.length",
            65,
            "calibrate",
            "error: calibration.length = 65 tokens, but the model accepts at most 64",
        ),
        (
            "evaluation.perplexity",
            {"length": 4000, "tokens": 4000, "batch": 1},
            "evaluate",
            "error: evaluation.perplexity",
        ),
        ("evaluation.perplexity.length", 64 + 1, "calibrate", "error: evaluation.perplexity.length = 65"),
        ("patterns.nm24.group", 5, "calibrate", "error: patterns.nm24: model.layers.0.self_attn.q_proj: "),
        ("models.tiny.path", "given/nowhere", "download", "error: given/nowhere: "),
    ],
)
def test_settings_that_do_not_fit_the_data_are_one_line(project, key, value, stage, line):
    before = project.files("artifacts", "results")
    if key == "calibration.length":
        project.edit("calibration.samples", 1)
    project.edit("evaluation.perplexity.tokens", 1000)
    project.edit(key, value)
    seed = ("--seed", "0") if stage == "calibrate" else ()
    output = project.command("python", f"stages/{stage}.py", "--model", "tiny", *seed, fails=True)
    assert line in output
    assert "Traceback" not in output
    assert project.files("artifacts", "results") == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused_by_name(project, value):
    path = project.folder / "artifacts" / "models" / "tiny" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    output = project.command("python", "stages/calibrate.py", "--model", "tiny", "--seed", "0", fails=True)
    assert "model.layers.1.mlp.up_proj.weight contains NaN or infinity" in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def reseeded(finished, tmp_path_factory):
    """The files of an uninterrupted run with another calibration."""
    project = finished.copy(tmp_path_factory.mktemp("reseeded") / "project")
    project.edit("calibration.samples", 5)
    project.repro()
    return project.outcomes("artifacts", "results")


@pytest.mark.parametrize("stage", ["calibrate", "warmstart", "refine"])
def test_a_killed_run_keeps_finished_stages_and_leaves_no_half_artifact(project, reseeded, stage):
    before = project.outcomes("artifacts", "results")
    project.edit("calibration.samples", 5)
    completed = kill_in(project, stage)
    for name, content in project.outcomes("artifacts", "results").items():
        assert ".partial" in name or content in (before.get(name), reseeded.get(name))
    assert not set(completed) & set(project.repro())
    assert project.outcomes("artifacts", "results") == reseeded
    assert not any(project.folder.rglob(".*.partial"))


def test_a_half_written_lock_file_is_named_and_loses_no_stage(project):
    project.cut_off_lock()
    output = project.command("prunelib", "run", fails=True)
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert "dvc.lock" in output
    (project.folder / "dvc.lock").unlink()
    assert project.repro() == ["report"]  # its files are in git, not in the cache


def kill_in(project, stage):
    """Run ``dvc repro`` and kill it with all its children while a stage writes; the stages completed before."""
    running = subprocess.Popen(
        ["dvc", "repro"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with running:
        begun = []
        for line in running.stdout:
            begun += re.findall(r"Running stage '(.*)'", line)
            if begun and begun[-1].startswith(stage):
                break
        while not any((project.folder / "artifacts").rglob(".*.partial")) and running.poll() is None:
            time.sleep(0.001)
        os.killpg(running.pid, signal.SIGKILL)
    return begun[:-1]


def test_the_exported_model_is_the_one_that_was_evaluated(project):
    words = (*CELL, "--pattern", "nm24", "--to", "exported")
    project.command("prunelib", "export", *words)
    model = AutoModelForCausalLM.from_pretrained(project.folder / "exported")
    weight = model.model.layers[0].mlp.up_proj.weight
    assert ((weight != 0).view(len(weight), -1, 4).sum(-1) == 2).all()
    assert AutoTokenizer.from_pretrained(project.folder / "exported")("abc")["input_ids"] == [3, 4, 5]
    output = project.command("prunelib", "export", *words, fails=True)
    assert "error: exported: exists already" in output
    assert "| perplexity, " in (project.folder / "exported" / "README.md").read_text()


def test_a_comparison_reports_several_grids_together_and_leaves_the_own_results_alone(project):
    project.edit("refiners.fitted", {"chain": ["sparseswaps", "least_squares"]})
    grids = [{"patterns": ["row50"]}, {"patterns": ["nm24"], "seeds": [0, 1], "refiners": ["fitted"]}]
    project.edit("comparisons", {"both": {"grids": grids}})
    project.commit("a comparison")
    before = project.files("artifacts", "results")
    command = ("prunelib", "compare", "both")
    assert "is cached - skipping run" in project.command(*command)
    table = (project.folder / "reports" / "both" / "results.csv").read_text()
    assert len(table.splitlines()) == 1 + 1 + 2 + 2
    assert "tiny-1-nm24-wanda-fitted" in table
    assert "2:4, updated weights" in (project.folder / "reports" / "both" / "results.md").read_text()
    assert project.files("artifacts", "results") == before
    assert "> python -m stages.refine" not in project.command(*command)
    project.edit("refiners.fitted", {"chain": ["sparseswaps", "sparsity"]})
    assert "error: params.yaml: refiners.fitted" in project.command(*command, fails=True)
