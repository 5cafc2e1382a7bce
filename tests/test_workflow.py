"""The frame of the stage scripts, as a user meets it on the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from prunelib import workflow
from prunelib.calibration.artifact import write_tokens
from prunelib.cell import Cell
from prunelib.errors import ArtifactError, ParamsError
from prunelib.masks.pruned import Pruned, read_pruned, write_pruned
from prunelib.params import Params, load_params
from prunelib.runtime import store

ROOT = Path(__file__).parents[1]
CELL = Cell(model="smollm2_135m", seed=3, pattern="nm24", warmstart="ria", refiner="swaps")


@pytest.fixture
def stage(tmp_path):
    """Run a stage's script in an empty project that has only the params; its exit status and both streams."""
    shutil.copy(ROOT / "params.yaml", tmp_path)

    def run(name, *options, **environment):
        words = [sys.executable, ROOT / "stages" / f"{name}.py", *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PRUNELIB_THREADS": "1", **environment}
        done = subprocess.run(words, cwd=tmp_path, env=env, text=True, capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


OPTIONS = ("--model", "smollm2_135m", "--seed", "0", "--pattern", "row60", "--warmstart", "wanda", "--refiner")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((*OPTIONS, "swap"), "error: --refiner: unknown name 'swap', expected one of none, swaps, "),
        ((*OPTIONS, "swaps"), "error: artifacts/models/smollm2_135m/provenance.json: no such file; run the stage"),
    ],
)
def test_a_fault_is_one_line_on_standard_error_and_status_2(stage, options, line):
    status, output, errors = stage("refine", *options)
    assert status == 2
    assert output == ""
    assert errors.startswith(line)
    assert errors.count("\n") == 1


def test_the_traceback_is_there_when_asked_for(stage):
    status, _, errors = stage("refine", *OPTIONS, "swap", "--traceback")
    assert status == 2
    assert "Traceback" in errors


def test_an_unusable_environment_variable_is_one_line(stage):
    status, _, errors = stage("refine", *OPTIONS, "swaps", PRUNELIB_THREADS="none")
    assert status == 2
    assert errors.startswith("error: environment variable PRUNELIB_THREADS='none': ")


def test_help_says_what_the_stage_does_and_takes(stage):
    status, output, _ = stage("warmstart", "--help")
    assert status == 0
    assert "keep the highest in each group" in " ".join(output.split())
    assert "--pattern NAME" in output
    assert "a name under patterns in params.yaml" in output


@pytest.mark.parametrize("name", ["warmstart", "refine"])
def test_stages_that_run_no_model_do_not_import_transformers(name):
    script = ROOT / "stages" / f"{name}.py"
    loaded = f"import runpy, sys; runpy.run_path({str(script)!r}); sys.exit('transformers' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", loaded], env=environment, check=False).returncode == 0


@pytest.fixture
def calibrated(tmp_path, monkeypatch):
    """A folder with a model's identity and two calibration tokens, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    model = {"checksums": {}, "sha256": "of the model"}
    store.write_record(workflow.model_folder("smollm2_135m") / "provenance.json", "model", model)
    tokens = torch.tensor([[1, 2]], dtype=torch.int32)
    drawn_from = {"model": "of the model", "settings": load_params(ROOT / "params.yaml").calibration.model_dump()}
    return write_tokens(workflow.calibration_folder(CELL), tokens, tokens[:0], drawn_from)


def test_masks_of_other_calibration_tokens_are_refused(calibrated):
    params = load_params(ROOT / "params.yaml")
    expected = workflow.made_from(params, CELL)
    assert expected == {
        "model": "of the model",
        "tokens": calibrated,
        "calibration": {"inputs": "dense", "batch": 4, "shards": 1, "min_tokens": 64},
        "pattern": {"kind": "n_of_m", "keep": 2, "group": 4},
        "warmstart": {"method": "ria", "exponent": 0.5},
        "refiner": params.refiners["swaps"].model_dump(mode="json"),
    }
    folder, pruned = workflow.refined_folder(CELL), Pruned({"layer": torch.tensor([[True, False]])}, {})
    write_pruned(folder, pruned, expected)
    assert torch.equal(read_pruned(folder, expected).masks["layer"], pruned.masks["layer"])
    write_pruned(folder, pruned, {**expected, "tokens": "others"})
    with pytest.raises(ArtifactError, match=r"nm24-ria-swaps/masks\.safetensors: its tokens is 'others', but"):
        read_pruned(folder, workflow.made_from(params, CELL))


@pytest.mark.parametrize(
    ("key", "source"),
    [
        ("models.mine", {"source": "local", "path": "artifacts/models/mine"}),
        ("models.mine", {"source": "local", "path": "elsewhere/../results/mine"}),
        ("texts.mine", {"source": "local", "members": ["scratch/*/a.txt"], "held_out_every_nth": 2}),
        ("tasks", {"source": "local", "files": {"piqa": "reports/piqa.jsonl"}}),
    ],
)
def test_a_source_in_a_folder_that_stages_write_to_is_refused(tmp_path, monkeypatch, key, source):
    monkeypatch.chdir(tmp_path)
    raw = YAML(typ="safe").load(ROOT / "params.yaml")
    section, _, name = key.partition(".")
    raw[section] = {**raw[section], name: source} if name else source
    if not name:
        raw["evaluation"]["tasks"]["names"] = ["piqa"]
        raw["comparisons"] = {}
    params = Params.model_validate(raw)
    with pytest.raises(ParamsError, match=rf"^{key}: .* which stages write to"):
        workflow.require_sources_elsewhere(params)
