"""The records that a report reads must be of the settings in params.yaml."""

from pathlib import Path

import pytest
from report_records import layers, result

from prunelib.cell import Cell
from prunelib.errors import ArtifactError
from prunelib.params import load_params
from prunelib.records import write_cell, write_layers
from prunelib.reporting.collect import collect, collect_finished
from prunelib.workflow import identities, own_folders, paths

ROOT = Path(__file__).parents[2]
ACCUMULATION = {"inputs": "dense", "batch": 4, "shards": 1, "min_tokens": 64}


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = load_params(ROOT / "params.yaml")
    names = {"patterns": ("nm24",), "warmstarts": ("wanda",), "refiners": ("swaps",), "seeds": (0,)}
    return read.model_copy(update={"grid": read.grid.model_copy(update=names)})


def write(params, cell, origin=None, **changes):
    """The records of a cell, as the stages write them but for these changes of what they were made from."""
    known = {"model": "m", "tokens": "t", "calibration": ACCUMULATION} if cell.pattern else {"model": "m"}
    made_from = {**known, **(origin or {}), **identities.methods(params, cell)}
    evaluated = {**made_from, **identities.evaluation_of(params, cell.model), **changes}
    write_cell(paths.result_file(cell), result(cell, {"wikipedia": 21.5}), evaluated)
    if cell.pattern:
        write_layers(paths.layers_file(cell), layers(3, 0.5), made_from)


def test_records_of_these_settings_are_read(params):
    for cell in params.grid.cells():
        write(params, cell)
    assert [found["cell"] for found in collect(params).cells] == [
        "smollm2_135m-dense",
        "smollm2_135m-0-nm24-wanda-swaps",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"dtype": "bfloat16"}, "its dtype is 'bfloat16'"),
        ({"refiner": {"method": "none"}}, "its refiner is"),
        ({"tokens": "other"}, "its tokens is 't', but 'other'"),
    ],
)
def test_records_of_others_are_refused(params, changes, line):
    dense, cell = params.grid.cells()
    write(params, dense)
    write(params, cell, **changes)
    with pytest.raises(ArtifactError, match=line):
        collect(params)


def test_records_of_one_cell_in_the_place_of_another_are_refused(params):
    dense, cell = params.grid.cells()
    write(params, dense)
    write(params, cell)
    other = Cell(**{**cell.model_dump(), "warmstart": "ria"})
    write(params, other)
    for file in (paths.result_file, paths.layers_file):
        before = file(cell).read_bytes()
        file(cell).write_bytes(file(other).read_bytes())
        with pytest.raises(ArtifactError, match="its warmstart is"):
            collect(params)
        file(cell).write_bytes(before)


@pytest.mark.parametrize(
    ("key", "value"), [("tokens", "of other windows"), ("model", "another"), ("calibration", {"inputs": "sequential"})]
)
def test_cells_of_several_calibrations_or_models_are_refused(params, key, value):
    both = {"grid": params.grid.model_copy(update={"warmstarts": ("wanda", "ria")})}
    params = params.model_copy(update=both)
    dense, first, second = params.grid.cells()
    for cell in (dense, first):
        write(params, cell)
    write(params, second, origin={key: value})
    with pytest.raises(ArtifactError, match=rf"nm24-ria-swaps\.json: its {key} is not that of .*; rerun"):
        collect_finished(params)


def test_what_is_finished_is_reported_and_the_rest_is_named(params):
    dense, cell = params.grid.cells()
    write(params, dense)
    found, missing = collect_finished(params)
    assert [row["cell"] for row in found.cells] == ["smollm2_135m-dense"]
    assert missing == [cell]


def test_records_of_cells_outside_the_grid_are_removed(params):
    dense, cell = params.grid.cells()
    other = Cell(**{**cell.model_dump(), "warmstart": "ria"})
    for each in (dense, cell, other):
        write(params, each)
    own_folders.remove_other_results(params)
    assert [paths.result_file(each).is_file() for each in (dense, cell, other)] == [True, True, False]
    assert [paths.layers_file(each).is_file() for each in (cell, other)] == [True, False]


@pytest.mark.parametrize("link", ["results", "results/cells", "results/cells/smollm2_135m"])
def test_nothing_outside_of_the_results_is_removed(params, tmp_path_factory, link):
    _, cell = params.grid.cells()
    other = Cell(**{**cell.model_dump(), "warmstart": "ria"})
    write(params, other)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    Path(link).rename(elsewhere)
    Path(link).symlink_to(elsewhere)
    own_folders.remove_other_results(params)
    assert paths.result_file(other).is_file()


def test_reports_and_results_of_a_comparison_stay(params):
    _, cell = params.grid.cells()
    other = Cell(**{**cell.model_dump(), "warmstart": "ria"})
    record = paths.result_file(other)
    compared = [Path("scratch/compare-methods") / record, Path("reports/methods/metrics.json"), record.with_suffix("")]
    for path in compared:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    own_folders.remove_other_results(params)
    assert all(path.is_file() for path in compared)
