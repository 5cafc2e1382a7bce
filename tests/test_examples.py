"""Every example runs through, as its first lines say."""

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from families import save, tiny_model
from pipeline_project import LETTERS, character_tokenizer
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(name, folder, *words):
    """What an example prints, run in a folder of its own with the library of this checkout."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ALONE = ["prune_a_layer.py", *sorted(path.name for path in EXAMPLES.glob("write_a_*.py"))]


@pytest.mark.parametrize("name", ALONE)
def test_an_example_prints_what_its_head_shows(name, tmp_path):
    head = ast.get_docstring(ast.parse((EXAMPLES / name).read_text(encoding="utf-8")))
    shown = textwrap.dedent(head.partition("Prints:\n\n")[2]).strip()
    assert shown
    assert but_for_numbers(run(name, tmp_path).strip()) == but_for_numbers(shown)


def but_for_numbers(text):
    """A text without its numbers, whose last digits depend on the machine."""
    return re.sub(r"\d[\d.,]*(e[+-]\d+)?", "#", text)


def test_a_model_in_a_folder_is_pruned_and_saved(tmp_path):
    folder = save(tiny_model("llama"), tmp_path / "dense")
    character_tokenizer().save_pretrained(folder)
    (tmp_path / "text.txt").write_text("".join(LETTERS[i * i % len(LETTERS)] for i in range(600)))
    assert "down_proj" in run("prune_a_model.py", tmp_path, "dense", "text.txt", "out")
    with safe_open(tmp_path / "out" / "model" / "model.safetensors", framework="pt") as stream:
        weight = stream.get_tensor("model.layers.0.mlp.up_proj.weight")
    assert ((weight.view(-1, 4) != 0).sum(dim=1) <= 2).all()
    assert (tmp_path / "out" / "masks" / "masks.safetensors").is_file()


@pytest.mark.parametrize(
    ("example", "module"),
    [("write_a_refiner.py", "refiners/first_swap.py"), ("write_a_warmstart.py", "warmstarts/tempered.py")],
)
def test_the_example_of_a_method_is_found_in_the_folder_of_methods(example, module, tmp_path):
    shutil.copytree(ROOT / "prunelib", tmp_path / "prunelib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLES / example, tmp_path / "prunelib" / module)
    words = [sys.executable, "-m", "prunelib", "methods"]
    done = subprocess.run(words, cwd=tmp_path, text=True, capture_output=True, check=True)
    assert f"`{Path(module).stem}`" in done.stdout


@pytest.mark.slow
def test_a_changed_grid_is_run(tmp_path):
    from pipeline_project import Project

    project = Project.create(tmp_path / "project")
    project.edit("grid.refiners", ["none"])
    output = project.command(sys.executable, str(EXAMPLES / "run_a_grid.py"))
    assert "nm14-wanda-none" in output
    assert (project.folder / "reports" / "results.csv").is_file()


@pytest.mark.slow
def test_fine_tuning_regains_what_pruning_lost_and_keeps_the_zeros(tmp_path):
    printed = run("fine_tune.py", tmp_path, "--to", tmp_path / "tuned")
    losses = {stage: float(value) for stage, value in re.findall(r"^loss, (\S+) +([\d.]+)$", printed, re.MULTILINE)}
    assert losses["fine-tuned"] < losses["pruned"]
    assert len(re.findall(r"^0 of 14 layers", printed, re.MULTILINE)) == 2
    assert (tmp_path / "tuned" / "masks" / "masks.safetensors").is_file()
