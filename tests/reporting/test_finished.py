"""The files of finished cells: found by their settings, refused when damaged, reported with their code."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_records import CASES, layers, result

from prunelib.cell import Cell
from prunelib.cell_settings import settings_of
from prunelib.errors import ArtifactError
from prunelib.params import Params, load_params
from prunelib.records import BlockResult, StepResult, Timing, write_cell, write_layers, write_timing
from prunelib.reporting.collect import collect_compared, compared_settings
from prunelib.reporting.finished import FinishedCells, finished_in
from prunelib.reporting.notes import notes
from prunelib.runtime.hashing import sha256_file
from prunelib.workflow import identities, paths

ROOT = Path(__file__).parents[2]
CODE = {stage: f"{stage} as it is" for stage in ("download", "calibrate", "warmstart", "refine", "evaluate")}
CELLS = Path("reports/one/cells")
BLOCKS = [BlockResult(block=0, error_before=0.5, error_after=0.25, epoch=3)]


def edited(**entries):
    """The params of the project, of one comparison of two cells, with these entries of sections changed."""
    raw = load_params(ROOT / "params.yaml").model_dump(mode="json")
    raw["comparisons"] = {"one": {"grids": [{"patterns": ["nm24"], "warmstarts": ["wanda"], "refiners": ["swaps"]}]}}
    for section, change in entries.items():
        raw[section] = {**raw[section], **change}
    return Params.model_validate(raw)


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return edited()


def wanted(params):
    return {cell: settings for cell, (_, settings) in compared_settings(params, "one").items()}


def make(params, cell, code=CODE, records=None):
    """Write the records of a cell as the stages do, and take them from there."""
    (grid,) = params.compared("one")
    origin = {"model": "m", "tokens": "t", "kernels": "cpu"} if cell.pattern else {"model": "m"}
    made_from = {**origin, **identities.methods(grid, cell)}
    evaluated = {**made_from, **identities.evaluation_of(grid, cell.model)}
    write_cell(paths.result_file(cell), result(cell, {"wikipedia": 21.5, "sotu": 1 / 3}), evaluated)
    if cell.pattern:
        write_layers(paths.layers_file(cell), records or layers(3, 0.5), made_from, BLOCKS)
        sha256 = sha256_file(paths.layers_file(cell))
        write_timing(
            paths.timing_file(cell), Timing(layers_sha256=sha256, step_seconds=(1.5,), peak_bytes=7, machine="one")
        )
    return finished_in(Path(), grid, cell, settings_of(grid, cell), code)


@pytest.fixture
def finished(params):
    """The finished cells of the comparison."""
    cells = FinishedCells(CELLS)
    for cell in wanted(params):
        cells.add(make(params, cell))
    return cells


def test_what_was_written_is_read_back(params, finished):
    again = FinishedCells(CELLS).find(wanted(params))
    assert again == finished.find(wanted(params))
    dense, cell = again.values()
    assert list(cell.layers) == layers(3, 0.5)
    assert list(cell.blocks) == BLOCKS
    assert cell.timing.seconds == 1.5
    assert cell.made_from["kernels"] == "cpu"
    assert dense.result.perplexity["sotu"].value == 1 / 3
    assert dense.code.keys() == {"download", "evaluate"}
    report, missing = collect_compared(params, "one", again)
    assert missing == []
    assert [row["cell"] for row in report.cells] == ["smollm2_135m-dense", "smollm2_135m-0-nm24-wanda-swaps"]
    assert len(report.layers) == len(layers(3, 0.5))


def test_a_cell_that_is_not_finished_is_named(params, finished):
    dense, cell = wanted(params)
    found = FinishedCells(CELLS).find(wanted(params))
    report, missing = collect_compared(params, "one", {dense: found[dense]})
    assert [row["cell"] for row in report.cells] == ["smollm2_135m-dense"]
    assert missing == [cell]


def test_a_cell_of_other_settings_is_not_taken(params, finished):
    other = edited(refiners={"swaps": {"method": "sparseswaps", "max_swaps": 3}})
    dense, cell = wanted(other)
    cells = FinishedCells(CELLS)
    assert list(cells.find(wanted(other))) == [dense]
    assert cells.changes(cell, wanted(other)[cell]) == ["refiner"]
    assert cells.changes(dense, wanted(other)[dense]) == []


def test_settings_that_this_version_does_not_have_are_others(params, finished):
    dense, cell = wanted(params)
    cells = FinishedCells(CELLS)
    made = cells.find(wanted(params))[cell]
    cells.add(made.model_copy(update={"settings": {**made.settings, "refiner": {"method": "of yesterday"}}}))
    again = FinishedCells(CELLS)
    assert list(again.find(wanted(params))) == [dense]
    assert "refiner" in again.changes(cell, wanted(params)[cell])


def test_new_names_in_params_yaml_find_the_same_cells(params, finished):
    raw = params.model_dump(mode="json")
    raw["refiners"]["optimum"] = raw["refiners"].pop("swaps")
    raw["texts"]["speeches"] = raw["texts"].pop("sotu")
    raw = json.loads(json.dumps(raw).replace('"swaps"', '"optimum"').replace('"sotu"', '"speeches"'))
    renamed = Params.model_validate(raw)
    cells = FinishedCells(CELLS)
    found = cells.find(wanted(renamed))
    assert list(found) == list(wanted(renamed))
    assert all(each.result.cell == cell for cell, each in found.items())
    assert {name: each.value for name, each in found[Cell(model="smollm2_135m")].result.perplexity.items()} == {
        "wikipedia": 21.5,
        "speeches": 1 / 3,
    }
    cells.move_to_current_names(found)
    assert {path.name for path in CELLS.iterdir()} == {
        "smollm2_135m-dense.json",
        "smollm2_135m-0-nm24-wanda-optimum.json",
    }
    assert FinishedCells(CELLS).find(wanted(renamed)) == found


def test_what_has_its_names_is_not_written_again(params, finished):
    before = {path: path.stat().st_mtime_ns for path in CELLS.iterdir()}
    cells = FinishedCells(CELLS)
    cells.move_to_current_names(cells.find(wanted(params)))
    assert {path: path.stat().st_mtime_ns for path in CELLS.iterdir()} == before


def test_two_entries_that_exchange_their_names_keep_their_cells(params, finished):
    one, other = ({"method": "sparseswaps", "max_swaps": count} for count in (3, 4))
    compared = {"one": {"grids": [{"patterns": ["nm24"], "warmstarts": ["wanda"], "refiners": ["a", "b"]}]}}
    before = edited(refiners={"a": one, "b": other}, comparisons=compared)
    after = edited(refiners={"a": other, "b": one}, comparisons=compared)
    cells = FinishedCells(CELLS)
    for cell in wanted(before):
        cells.add(make(before, cell))
    cells = FinishedCells(CELLS)
    cells.move_to_current_names(cells.find(wanted(after)))
    found = FinishedCells(CELLS).find(wanted(after))
    assert found.keys() == wanted(after).keys()
    assert {cell.refiner: each.settings["refiner"]["max_swaps"] for cell, each in found.items() if cell.pattern} == {
        "a": 4,
        "b": 3,
    }


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("0.5", "0.4", 1),
        lambda text: "",
        lambda text: "{}",
        lambda text: text.replace('"finished cell",2', '"finished cell",1'),
    ],
)
def test_a_damaged_or_edited_file_is_one_line_that_names_it(params, finished, damage):
    path = CELLS / "smollm2_135m-0-nm24-wanda-swaps.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ArtifactError) as fault:
        FinishedCells(CELLS)
    assert str(fault.value).startswith(f"{path}: ")
    assert "git" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_file_being_written_is_passed_over(params, finished):
    (CELLS / ".smollm2_135m-dense.json.123.partial").write_text("{")
    assert len(FinishedCells(CELLS).find(wanted(params))) == 2


def test_different_code_is_noted_in_the_report(params, finished):
    cells = FinishedCells(CELLS)
    report, _ = collect_compared(params, "one", cells.find(wanted(params)))
    before = notes(report)
    dense = next(iter(wanted(params)))
    cells.add(make(params, dense, {**CODE, "evaluate": "other"}))
    report, _ = collect_compared(params, "one", cells.find(wanted(params)))
    (note,) = [line for line in notes(report) if line not in before]
    assert "evaluate" in note
    assert "refine" not in note


def test_the_grid_has_no_note_on_code():
    known = CASES["grid"]
    assert notes(known) == notes(replace(known, code={"a": {"refine": "x"}, "b": {"refine": "x"}}))


def test_a_cell_of_210_matrices_has_the_size_that_the_documentation_states(params):
    methods = ("sparseswaps", "refit_swaps")
    records = [
        layer.model_copy(
            update={
                "name": f"model.layers.{number}.self_attn.{layer.kind}",
                "energy": 4e7 / number,
                "steps": tuple(StepResult(method=method, loss_after=1e6 / number) for method in methods),
            }
        )
        for number in range(7, 42)
        for layer in layers(12345, 1 / 3, start=1e5 / number, sweeps=1234)
    ]
    assert len(records) == 210
    _, cell = wanted(params)
    FinishedCells(CELLS).add(make(params, cell, records=records))
    page = (ROOT / "docs" / "pages" / "how-to" / "grid.md").read_text(encoding="utf-8")
    stated = int(re.search(r"some (\d+) KB for 210 matrices", page)[1])
    (file,) = CELLS.glob("*.json")
    assert file.stat().st_size / 1000 == pytest.approx(stated, rel=0.3)
