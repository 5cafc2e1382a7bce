"""What README.md states as facts: its example runs, its commands, options, files and figures exist."""

import re
from pathlib import Path

import picture
import pytest
import tables
from families import save, tiny_model
from parts.committed import benchmarked
from pipeline_project import LETTERS, character_tokenizer
from typer.main import get_command

from prunelib.block_refiners.block_reconstruction import BlockReconstruction
from prunelib.cli.app import app
from prunelib.masks.patterns import NOfM
from prunelib.params import load_params
from prunelib.refiners.refit_swaps import RefitSwaps
from prunelib.refiners.sparseswaps import SparseSwaps
from prunelib.runtime.machine import Machine

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs" / "pages").rglob("*.md"))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *PAGES)}
COMMANDS = get_command(app).commands


def test_the_example_prunes_a_model_and_saves_the_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    character_tokenizer().save_pretrained(save(tiny_model("llama"), tmp_path / "model"))
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    text = "".join(LETTERS[i * i % len(LETTERS)] for i in range(200))
    for shown, used in {"samples=64": "samples=4", "length=512": "length=12"}.items():
        example = example.replace(shown, used)
    example = re.sub(r"texts = \[.*?\]", f"texts = [{text!r}]", example)
    made = {}
    exec(compile(example, "README.md", "exec"), made)  # noqa: S102 - our own example
    assert NOfM(keep=2, group=4).holds_in(made["model"].model.layers[0].mlp.up_proj.weight)
    assert (tmp_path / "masks" / "masks.safetensors").is_file()


@pytest.mark.parametrize("path", tables.FILLED, ids=lambda path: path.name)
def test_the_figures_between_markers_are_those_of_the_committed_results(path):
    text = path.read_text(encoding="utf-8")
    assert tables.filled(text) == text, f"{path.name} is out of date: run `python docs/tables.py`"
    starts, ends = (re.findall(rf"<!-- {slash}(\w+) -->", text) for slash in ("", "/"))
    assert starts == ends
    assert len(set(starts)) == len(starts)


def test_the_recipe_in_words_is_the_one_that_was_run():
    params = load_params(ROOT / "params.yaml")
    chain = params.refiners["recommended"].chain
    assert [step.method for step in chain] == ["sparseswaps", "refit_swaps", "block_reconstruction"]
    assert chain == (SparseSwaps(), RefitSwaps(), BlockReconstruction(epochs=3))
    (whole,) = params.compared("recommended")
    assert (whole.calibration.samples, whole.calibration.length) == (256, 512)
    assert whole.evaluation.tasks.limit == 200
    (words,) = re.findall(r"`(--samples 256 .*?)`", TEXTS["docs/pages/choose.md"])
    options = "--samples 256 --length 512 --refiner sparseswaps --refiner refit_swaps --refiner "
    assert words == options + "'{method: block_reconstruction, epochs: 3}'"


def test_the_picture_is_that_of_the_committed_results():
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.svg(), "run `python docs/picture.py`"


@pytest.mark.parametrize("name", TEXTS)
def test_every_make_target_exists(name):
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:\$|`)\s?make ([a-z0-9]+)", TEXTS[name])) <= targets


@pytest.mark.parametrize("name", TEXTS)
def test_every_subcommand_and_option_exists(name):
    for command, words in re.findall(r"(?:\$ |`)prunelib ([a-z]+)((?:\\\n|[^`\n])*)", TEXTS[name]):
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", words)) <= known, command


@pytest.mark.parametrize("name", TEXTS)
def test_every_script_exists(name):
    for path in re.findall(r"python ((?:benchmarks|examples|docs|stages)/\S+?\.py)", TEXTS[name]):
        assert (ROOT / path).is_file(), path


def test_every_link_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", TEXTS)
def test_every_variable_of_the_machine_exists(name):
    known = {f"PRUNELIB_{field.upper()}" for field in Machine.model_fields}
    assert set(re.findall(r"PRUNELIB_[A-Z_]+", TEXTS[name])) <= known


def test_what_the_tables_rest_on_holds():
    """The texts beside the tables say that masks are the same, that nothing differed, and that rows are optimal."""
    result = benchmarked("refine")
    assert all(each["same_masks_as_best"] for each in result["records"] if each["mode"] != "sweeps to the optimum")
    assert all(each["rows_proven_optimal"] == 1 for each in benchmarked("calibration_text")["records"])
    for name in ("identical", "kills", "nodes"):
        assert all(each["same"] for each in benchmarked(f"workers-{name}")["records"])
    assert benchmarked("kills")["different"] == benchmarked("kills")["stuck"] == 0


def test_what_must_be_lower_in_the_comparison_of_methods_is():
    records = benchmarked("orderings")["records"]
    pairs = {
        "swaps, refit swaps / SparseGPT": lambda each: each["lower"] == each["matrices"] == 210,
        "swaps, refit swaps / ADMM, least squares": lambda each: each["mean_ratio"] < 1,
        "SparseFW, then swaps / swaps": lambda each: each["lower"] == each["matrices"],
    }
    for pair, holds in pairs.items():
        found = [each for each in records if each["pair"] == pair]
        assert found
        assert all(map(holds, found)), pair


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_table_of_the_site_is_made(name):
    assert tables.TABLES[name]().strip()
