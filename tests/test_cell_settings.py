"""A cell's identity: changed by each setting that decides its figures, and by nothing else."""

import copy
import json
from pathlib import Path

import pytest
from families import save, tiny_model
from pipeline_project import PARAMS
from ruamel.yaml import YAML

from prunelib.cell import Cell
from prunelib.cell_settings import CellSettings, settings_of
from prunelib.errors import SourceError
from prunelib.params import Params, load_params

ROOT = Path(__file__).parents[1]
CELL = Cell(model="tiny", seed=0, pattern="row50", warmstart="wanda", refiner="swaps")
DENSE = Cell(model="tiny")
WHEEL = {"source": "wheel", "requirement": "words==1.0", "members": ["*.txt"], "held_out_every_nth": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save(tiny_model("llama"), folder)
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch, weights):
    """A folder with a model, texts and items, in which the test runs; its params.yaml as a mapping."""
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "given" / "model"
    model.mkdir(parents=True)
    for file in weights.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    for name in ("ours", "theirs"):
        (tmp_path / "given" / name).mkdir()
        for number in range(3):
            (tmp_path / "given" / name / f"{number}.txt").write_text(f"{name} {number}")
    (tmp_path / "given" / "piqa.jsonl").write_text('{"goal": "a"}\n')
    params = copy.deepcopy(PARAMS)
    params["texts"]["pinned"] = {**WHEEL, "sha256": 64 * "0"}
    params["grid"]["texts"] = ["ours", "theirs", "pinned"]
    params["tasks"] = {"source": "local", "files": {"piqa": "given/piqa.jsonl", "sciq": "given/nowhere.jsonl"}}
    params["evaluation"]["tasks"]["names"] = ["piqa"]
    return params


def identity(params, cell=CELL):
    return settings_of(Params.model_validate(params), cell).identity()


def edit(params, key, value):
    *path, last = key.split(".")
    for part in path:
        params = params[part]
    params[last] = value


PRUNING = [
    ("calibration.text", "theirs"),
    ("calibration.samples", 5),
    ("calibration.batch", 2),
    ("calibration.inputs", "sequential"),
    ("patterns.row50.sparsity", 0.25),
    ("warmstarts.wanda", {"method": "magnitude"}),
    ("refiners.swaps.max_swaps", 7),
    ("refiners.swaps", {"chain": ["sparseswaps", "least_squares"]}),
]
BOTH = [
    ("models.tiny.dtype", "bfloat16"),
    ("models.tiny.bos_per_window", True),
    ("texts.pinned.sha256", 64 * "1"),
    ("texts.pinned.held_out_every_nth", 3),
    ("grid.texts", ["ours", "theirs"]),
    ("tasks", {"source": "hub"}),
    ("evaluation.tasks.limit", 5),
    ("evaluation.perplexity.tokens", 32),
    ("evaluation.samples.prompts", ["a dog"]),
]


@pytest.mark.parametrize(("key", "value"), PRUNING)
def test_a_setting_of_pruning_is_part_of_a_cell_but_not_of_the_dense_model(project, key, value):
    before = identity(project), identity(project, DENSE)
    edit(project, key, value)
    assert identity(project) != before[0]
    assert identity(project, DENSE) == before[1]


def test_a_share_of_dense_targets_is_part_of_a_cell_and_none_leaves_earlier_cells_as_they_are(project):
    edit(project, "calibration.inputs", "true_sequential")
    before = identity(project)
    edit(project, "calibration.dense_target", 0)
    assert identity(project) == before
    edit(project, "calibration.dense_target", 0.5)
    assert identity(project) != before


@pytest.mark.parametrize(("key", "value"), BOTH)
def test_a_setting_of_the_evaluation_is_part_of_every_cell(project, key, value):
    before = identity(project), identity(project, DENSE)
    edit(project, key, value)
    after = identity(project), identity(project, DENSE)
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_another_seed_is_another_cell(project):
    assert identity(project) != identity(project, Cell(**{**CELL.model_dump(), "seed": 1}))


@pytest.mark.parametrize("file", ["model/model.safetensors", "model/config.json", "ours/1.txt", "piqa.jsonl"])
def test_what_is_in_a_local_file_is_part_of_every_cell(project, file):
    before = identity(project), identity(project, DENSE)
    with (Path("given") / file).open("ab") as stream:
        stream.write(b" ")
    after = identity(project), identity(project, DENSE)
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_a_local_file_that_is_missing_is_one_line(project):
    Path("given/piqa.jsonl").unlink()
    with pytest.raises(SourceError, match=r"^given/piqa\.jsonl: cannot be read"):
        identity(project)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("grid.seeds", [0, 1]),
        ("grid.refiners", ["swaps"]),
        ("grid.texts", ["pinned", "theirs", "ours"]),
        ("labels", {"refiners": {"swaps": "Swaps"}}),
        ("comparisons", {"one": {"grids": [{}]}}),
        ("refiners.others", {"method": "least_squares"}),
        ("refiners.none", {"method": "least_squares"}),
        ("texts.pinned.attribution", "nobody"),
        ("models.tiny.license", "mit"),
        ("models.tiny.allow_uncovered", True),
        ("tasks.files.sciq", "given/nothing.jsonl"),
        ("refiners.swaps", {"method": "sparseswaps"}),
    ],
)
def test_what_decides_no_figure_of_a_cell_is_no_part_of_it(project, key, value):
    before = identity(project)
    edit(project, key, value)
    assert identity(project) == before


def test_names_and_places_are_no_part_of_a_cell(project):
    before = identity(project)
    Path("given").rename("elsewhere")
    moved = json.loads(json.dumps(project).replace("given/", f"{Path.cwd()}/elsewhere/").replace('"ours"', '"mine"'))
    moved["models"]["small"] = moved["models"].pop("tiny")
    moved["refiners"]["optimum"] = moved["refiners"].pop("swaps")
    moved["grid"].update(models=["small"], refiners=["optimum"])
    assert identity(moved, Cell(**{**CELL.model_dump(), "model": "small", "refiner": "optimum"})) == before


def test_every_cell_of_every_comparison_is_known_again_by_its_record():
    params = load_params(ROOT / "params.yaml")
    for comparison in params.comparisons:
        for grid in params.compared(comparison):
            for cell in grid.grid.cells():
                settings = settings_of(grid, cell)
                recorded = json.loads(json.dumps(settings.recorded()))
                assert CellSettings.model_validate(recorded).identity() == settings.identity()


def test_given_masks_are_known_by_their_hash(project):
    project["warmstarts"]["wanda"] = {"method": "given", "path": "a.safetensors", "sha256": 64 * "a"}
    settings = settings_of(Params.model_validate(project), CELL)
    assert CellSettings.model_validate(settings.recorded()).identity() == settings.identity()
    edit(project, "warmstarts.wanda.path", "b.safetensors")
    assert identity(project) == settings.identity()
    edit(project, "warmstarts.wanda.sha256", 64 * "b")
    assert identity(project) != settings.identity()


def test_a_record_from_before_a_key_was_added_has_its_default():
    params = load_params(ROOT / "params.yaml")
    cell = Cell(model="smollm2_135m", seed=0, pattern="row60", warmstart="ria", refiner="swaps")
    settings = settings_of(params, cell)
    recorded = settings.recorded()
    del recorded["calibration"]["shards"], recorded["refiner"]["damping"]
    assert CellSettings.model_validate(recorded).identity() == settings.identity()
    recorded["refiner"]["damping"] = 0.5
    assert CellSettings.model_validate(recorded).identity() != settings.identity()


def test_no_local_path_is_recorded(project):
    recorded = json.dumps(settings_of(Params.model_validate(project), CELL).recorded())
    assert "given" not in recorded
    assert YAML(typ="safe").load(recorded)["model"]["source"] == "local"
