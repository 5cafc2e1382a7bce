"""The base model and the licence of a pruned model: given, recorded, in the dense model's card, or in a file."""

from pathlib import Path

import pytest

from prunelib.export.origin import Origin, origin_of
from prunelib.sources.provenance import seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dense = tmp_path / "dense"
    dense.mkdir()
    for name in ("config.json", "model.safetensors"):
        (dense / name).write_text("{}")
    return dense


def card(folder: Path, metadata: str) -> None:
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n# A model\n---\nlicense: mit\n", encoding="utf-8")


def test_nothing_is_made_up(folder: Path) -> None:
    assert origin_of(folder) == Origin()
    card(folder, "tags: [a]")
    seal(folder, "model", {"source": "local", "path": "dense", "id": "owner/name"})
    assert origin_of(folder) == Origin()


def test_a_model_of_the_hub_is_the_base_model(folder: Path) -> None:
    seal(folder, "model", {"source": "hub", "id": "owner/name", "revision": "0" * 40, "license": "mit"})
    assert origin_of(folder) == Origin("owner/name", {"license": "mit"})


def test_a_folder_of_the_hubs_cache_has_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "models--owner--my-name--v2" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    assert origin_of(folder).base_model == "owner/my-name--v2"


def test_the_licence_is_that_of_the_card(folder: Path) -> None:
    card(folder, "license: other\nlicense_name: llama3\nlicense_link: LICENSE\nlanguage: en")
    (folder / "LICENSE").write_text("terms")
    found = origin_of(folder).licence
    assert found == {"license": "other", "license_name": "llama3", "license_link": "LICENSE"}


@pytest.mark.parametrize("metadata", ["license: [mit, x]", "license: '<b>'", "a: [", "- license", "", "license:"])
def test_a_card_without_a_licence_leaves_the_file(folder: Path, metadata: str) -> None:
    card(folder, metadata)
    assert origin_of(folder).licence == {}
    (folder / "LICENSE.txt").write_text("terms")
    found = origin_of(folder).licence
    assert (found["license"], found["license_link"]) == ("other", "LICENSE.txt")


@pytest.mark.parametrize("text", ["", "# no metadata\n---\nlicense: mit\n---\n", "---\nlicense: mit\n"])
def test_metadata_stand_at_the_beginning_of_a_card(folder: Path, text: str) -> None:
    (folder / "README.md").write_text(text)
    assert origin_of(folder).licence == {}


def test_what_is_given_comes_first(folder: Path) -> None:
    seal(folder, "model", {"source": "hub", "id": "owner/name", "license": "mit"})
    assert origin_of(folder, "other/name", "apache-2.0") == Origin("other/name", {"license": "apache-2.0"})


def test_a_pruned_model_pruned_again_keeps_the_base_model_of_its_card(folder: Path) -> None:
    card(folder, "base_model: owner/name\nlicense: mit")
    assert origin_of(folder).base_model is None
    (folder / "masks.safetensors").touch()
    assert origin_of(folder) == Origin("owner/name", {"license": "mit"})
