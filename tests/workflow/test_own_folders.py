"""The folders that stages write to."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from prunelib.errors import ParamsError
from prunelib.params import Params
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
