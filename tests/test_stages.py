"""Stages as their command lines run them, in this process, over a tiny project: what they refuse of what they read."""

import runpy
import sys

import pytest
from commands import prunelib
from families import WORDS
from pipeline_project import CELL, Project, character_tokenizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prunelib.cell import Cell
from prunelib.evaluation import parts
from prunelib.masks.pruned import Pruned, read_pruned, write_pruned
from prunelib.params import load_params
from prunelib.runtime.machine import machine
from prunelib.workflow import identities, paths

MODEL, CALIBRATE = ("download", *CELL[:2]), ("calibrate", *CELL[:4])
WARMSTART, REFINE, EVALUATE = ("warmstart", *CELL[:8]), ("refine", *CELL), ("evaluate", *CELL)
EVALUATE_DENSE = ("evaluate", *CELL[:2])
TEXTS = [("download", "--text", text) for text in ("ours", "theirs")]
EVERYTHING = [MODEL, *TEXTS, ("download",), CALIBRATE, WARMSTART, REFINE, EVALUATE_DENSE, EVALUATE]


def run(project, stage, *words):
    """Run a stage's script in the project, on plain torch, which compiles nothing; its exit status."""
    for cached in (machine, parts._loaded):  # a process of its own begins without
        cached.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        patch.setenv("PRUNELIB_BACKEND", "reference")
        patch.setenv("PRUNELIB_THREADS", "1")
        patch.setattr(sys, "argv", [f"stages/{stage}.py", *words])
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            return ended.code
    return 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project in which all stages have run for the dense model and one cell."""
    project = Project.of_stages(tmp_path_factory.mktemp("stages") / "project")
    for words in EVERYTHING:
        assert run(project, *words) == 0
    return project


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNELIB_BACKEND", "reference")
    copy = finished.copy(tmp_path / "project")
    monkeypatch.chdir(copy.folder)
    return copy


@pytest.fixture
def refusal(project, capsys):
    """Run a stage that refuses; the line that it says last."""

    def refused(*words):
        capsys.readouterr()
        assert run(project, *words) == 2
        return capsys.readouterr().err.splitlines()[-1]

    return refused


@pytest.mark.parametrize("words", [CALIBRATE, WARMSTART, REFINE, EVALUATE_DENSE, EVALUATE], ids=" ".join)
def test_weights_changed_behind_their_hash_are_refused(project, refusal, words):
    weights = project.folder / "artifacts" / "models" / "tiny" / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert refusal(*words).startswith("error: artifacts/models/tiny/model.safetensors: ")


LAYER = "model.layers.0.self_attn.q_proj"
PRUNED = Cell(model="tiny", seed=0, pattern="row50", warmstart="wanda", refiner="swaps")


def refuses_to_export(project, *facts):
    done = prunelib("export", *CELL, "--to", "exported")
    assert done.exit_code == 2
    assert all(fact in done.stderr for fact in facts)
    assert not (project.folder / "exported").exists()


def test_masks_changed_behind_their_checksum_are_neither_evaluated_nor_exported(project, refusal):
    file = paths.refined_folder(PRUNED) / "masks.safetensors"
    with safe_open(file, "pt") as stream:
        header = stream.metadata()
    packed = {name: tensor.clone() for name, tensor in load_file(file).items()}
    packed[LAYER] = packed[LAYER].flip(0)  # rows in another order keep every count
    save_file(packed, file, header)
    assert all(fact in refusal(*EVALUATE) for fact in (f"{file}: ", LAYER))
    refuses_to_export(project, f"{file}: ", LAYER)


def test_masks_that_miss_their_pattern_in_a_row_are_not_exported(project):
    made_from = identities.made_from(load_params(), PRUNED)
    pruned = read_pruned(paths.refined_folder(PRUNED), made_from)
    masks = dict(pruned.masks)
    column = int((masks[LAYER][0] & ~masks[LAYER][1]).nonzero()[0])
    masks[LAYER][0, column], masks[LAYER][1, column] = False, True
    write_pruned(paths.refined_folder(PRUNED), Pruned(masks, {}), made_from)
    refuses_to_export(project, f"{LAYER}: mask: 2 of 32 groups", "row 0")


@pytest.mark.parametrize("number", [0, 1], ids=["held-out", "calibration"])
def test_a_token_beyond_the_embedding_in_either_split_is_refused_before_calibration(project, refusal, number):
    tokenizer = character_tokenizer()
    tokenizer.add_tokens([f"<extra{number}>" for number in range(40)])
    tokenizer.save_pretrained(project.folder / "given" / "model")
    text = project.folder / "given" / "ours" / f"{number}.txt"
    text.write_text(text.read_text() + "<extra39>")
    for words in (MODEL, *TEXTS):
        assert run(project, *words) == 0
    line = refusal(*CALIBRATE)
    assert all(
        fact in line for fact in ("<extra39>", f"{tokenizer.convert_tokens_to_ids('<extra39>')}", f"{WORDS} rows")
    )


def another_head(project):
    """Change the model where no layer's error shows it, and make the masks of the changed one."""
    weights = project.folder / "given" / "model" / "model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "lm_head.weight": -tensors["lm_head.weight"]}, weights, {"format": "pt"})
    return [MODEL, CALIBRATE, WARMSTART, REFINE]


def another_text(project):
    (project.folder / "given" / "theirs" / "0.txt").write_text("a text that is as long as a window. " * 4)
    return [TEXTS[1]]


def another_evaluation(project):
    project.edit("evaluation.perplexity.length", 8)
    return []


def test_a_card_has_the_figures_that_were_measured_of_what_is_exported(project):
    assert prunelib("export", *CELL, "--to", "exported").exit_code == 0
    assert "| perplexity, " in (project.folder / "exported" / "README.md").read_text()


@pytest.mark.parametrize("change", [another_head, another_text, another_evaluation])
def test_a_card_has_no_figures_of_another_model_text_or_evaluation(project, change):
    for words in change(project):
        assert run(project, *words) == 0
    with pytest.warns(UserWarning, match="the model card has no figures of") as warned:
        assert prunelib("export", *CELL, "--to", "exported").exit_code == 0
    assert len(warned) == len(("the dense model", "the cell"))
    card = (project.folder / "exported" / "README.md").read_text()
    assert "No figures were measured." in card
    assert "perplexity" not in card


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("download", "--model", "tiny", "--text", "ours"), "error: --model tiny --text ours: "),
        (("evaluate", "--model", "tiny", "--pattern", "row50"), "error: --seed: missing"),
    ],
)
def test_names_that_name_no_one_thing_are_refused(refusal, words, line):
    assert refusal(*words).startswith(line)


def test_what_is_finished_is_reported_and_what_is_missing_is_said(project):
    done = prunelib("report")
    assert done.exit_code == 0
    table = (project.folder / "reports" / "results.csv").read_text()
    assert [line.split(",")[0] for line in table.splitlines()[1:]] == ["tiny-dense", "tiny-0-row50-wanda-swaps"]
    for cell in ("tiny-0-row50-wanda-none", "tiny-0-nm24-wanda-none", "tiny-0-nm24-wanda-swaps"):
        assert f"{cell}: " in done.stdout + done.stderr
