"""The folders that stages write to."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from prunelib.cli.compare import compare
from prunelib.errors import ParamsError
from prunelib.params import Params, load_params
from prunelib.workflow import own_folders

ROOT = Path(__file__).parents[2]


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
        own_folders.require_sources_elsewhere(params)


def texts_of(params):
    for text in (*params.grid.texts, "old", ".old.1.partial"):
        (Path("artifacts/texts") / text).mkdir(parents=True)
        (Path("artifacts/texts") / text / "documents.jsonl").touch()


def test_texts_outside_the_grid_are_removed_and_no_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "params.yaml")
    texts_of(params)
    own_folders.remove_other_texts(params)
    assert {path.name for path in Path("artifacts/texts").iterdir()} == {*params.grid.texts, ".old.1.partial"}


@pytest.mark.parametrize("link", ["artifacts", "artifacts/texts"])
def test_no_text_of_another_project_is_removed(tmp_path, monkeypatch, link):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    params = load_params(ROOT / "params.yaml")
    texts_of(params)
    Path(link).rename(tmp_path / "moved")
    Path(link).symlink_to(tmp_path / "moved")
    own_folders.remove_other_texts(params)
    assert Path("artifacts/texts/old/documents.jsonl").is_file()


def test_the_tasks_of_a_comparison_are_refused_there_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = YAML(typ="safe").load(ROOT / "params.yaml")
    tasks = {"source": "local", "files": {"piqa": "results/piqa.jsonl"}}
    raw["evaluation"]["tasks"]["names"] = ["piqa"]
    raw["comparisons"] = {"both": {"tasks": tasks, "grids": [{}]}}
    with Path("params.yaml").open("w") as stream:
        YAML().dump(raw, stream)
    with pytest.raises(ParamsError, match=r"^tasks: .* which stages write to"):
        compare("both")
