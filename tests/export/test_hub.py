"""Upload of an exported folder by the hub's own client, which a fake stands for: no network."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from families import save, tiny_model

from prunelib.errors import ArtifactError
from prunelib.export.card import model_card
from prunelib.export.folder import export_model
from prunelib.export.hub import push_to_hub
from prunelib.export.origin import Origin
from prunelib.masks.patterns import NOfM
from prunelib.masks.pruned import Pruned
from prunelib.masks.selection import select
from prunelib.model.structure import find_layers

MADE_FROM = {
    "pattern": {"kind": "n_of_m", "keep": 2, "group": 4},
    "calibration": {"inputs": "dense"},
    "warmstart": {"method": "wanda"},
    "refiner": {"method": "none"},
}
KNOWN = Origin("owner/dense", {"license": "mit"})


@pytest.fixture
def hub(monkeypatch):
    """The calls that the hub would have had, by name."""
    calls = {}

    class FakeApi:
        def __init__(self, **arguments):
            calls["api"] = arguments

        def create_repo(self, repo_id, **arguments):
            calls["create_repo"] = {"repo_id": repo_id, **arguments}

        def upload_folder(self, **arguments):
            calls["upload_folder"] = arguments
            if "fault" in calls:
                raise calls["fault"]
            return SimpleNamespace(commit_url="https://example.org/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    return calls


def exported(tmp_path, origin=KNOWN):
    model = tiny_model("llama")
    index = find_layers(model, save(model, tmp_path / "dense", "20KB"))
    masks = {layer.name: select(layer.weight(model).abs(), NOfM(keep=2, group=4)) for layer in index.layers}
    card = model_card("dense", MADE_FROM, None, None, origin)
    (tmp_path / "dense" / "tokenizer.json").write_text("{}")
    export_model(tmp_path / "dense", tmp_path / "pruned", index, Pruned(masks, {}), MADE_FROM, card)
    return tmp_path / "pruned"


def test_an_exported_folder_is_uploaded_and_nothing_else(hub, tmp_path):
    folder = exported(tmp_path)
    files = sorted(file.name for file in folder.iterdir())
    assert {"README.md", "masks.safetensors", "provenance.json", "config.json", "tokenizer.json"} <= set(files)
    for name in ("secrets.json", "notes.txt", "optimizer.safetensors"):
        (folder / name).write_text("mine")
    address = push_to_hub(str(folder), "owner/pruned", private=True, revision="main", token="t")  # noqa: S106
    assert address == "https://example.org/commit/1"
    assert hub["api"] == {"token": "t"}
    assert hub["create_repo"] == {"repo_id": "owner/pruned", "repo_type": "model", "private": True, "exist_ok": True}
    uploaded = hub["upload_folder"]
    assert sorted(uploaded["allow_patterns"]) == files
    assert (uploaded["folder_path"], uploaded["repo_id"], uploaded["revision"]) == (folder, "owner/pruned", "main")


@pytest.mark.parametrize(
    ("origin", "missing"),
    [(Origin(), "base_model"), (Origin("owner/dense"), "license"), (Origin(None, {"license": "mit"}), "base_model")],
)
def test_a_card_without_base_model_or_licence_is_not_published(hub, tmp_path, origin, missing):
    folder = exported(tmp_path, origin)
    with pytest.raises(ArtifactError, match=rf"README\.md: no {missing}"):
        push_to_hub(folder, "owner/pruned")
    assert hub == {}
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("---\n", "---\nbase_model: owner/dense\nlicense: mit\n", 1))
    if origin == Origin():
        push_to_hub(folder, "owner/pruned")
        assert hub["upload_folder"]["repo_id"] == "owner/pruned"


@pytest.mark.parametrize("name", ["README.md", "masks.safetensors", "config.json"])
def test_a_folder_that_is_no_export_is_refused(hub, tmp_path, name):
    folder = exported(tmp_path)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        push_to_hub(folder, "owner/pruned")
    with pytest.raises(ArtifactError, match="nowhere"):
        push_to_hub(tmp_path / "nowhere", "owner/pruned")
    assert hub == {}


def test_damaged_metadata_are_refused(hub, tmp_path):
    folder = exported(tmp_path)
    for card in ("---\na: [\n---\n", "---\n- a\n---\n", "no metadata"):
        (folder / "README.md").write_text(card)
        with pytest.raises(ArtifactError, match=r"README\.md"):
            push_to_hub(folder, "owner/pruned")
    assert hub == {}


@pytest.mark.parametrize("fault", [OSError("no\nconnection"), ValueError("odd"), "http", "hub"])
def test_a_fault_of_the_hub_is_one_line(hub, tmp_path, fault):
    from huggingface_hub import errors

    if fault == "http":
        fault = errors.HTTPError("no connection")
    elif fault == "hub":
        fault = errors.HFValidationError("no such name")
    hub["fault"] = fault
    with pytest.raises(ArtifactError, match="owner/pruned") as refused:
        push_to_hub(exported(tmp_path), "owner/pruned")
    assert "\n" not in str(refused.value)
