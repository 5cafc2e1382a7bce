"""Model folders: complete, without pickles or code, and known by their contents."""

import json
import re
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import errors
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import save_file

from prunelib.errors import ArtifactError, ModelError, SourceError
from prunelib.sources import ModelSource, fetch_model, model_identity, text_identity
from prunelib.sources.models import HubModel, LocalModel
from prunelib.sources.provenance import computed_identity

REVISION = "0123456789" * 4


@pytest.fixture
def original(tmp_path):
    """A folder as people have them, with files that are not wanted."""
    folder = tmp_path / "my-model"
    (folder / "onnx").mkdir(parents=True)
    save_file({"w": np.ones((2, 3), np.float32)}, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md"):
        (folder / name).write_text("{}")
    for name in ("pytorch_model.bin", "modeling_mine.py", "consolidated.safetensors", "onnx/model.safetensors"):
        (folder / name).write_bytes(b"no")
    return folder


def fetched(settings, folder):
    folder.mkdir()
    fetch_model(settings, folder)
    return folder


def test_only_weights_configuration_and_tokenizer_are_copied(original, tmp_path):
    folder = fetched(LocalModel(path=original), tmp_path / "out")
    names = {path.name for path in folder.iterdir()}
    wanted = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert names == wanted | {"provenance.json"}
    assert (folder / "model.safetensors").read_bytes() == (original / "model.safetensors").read_bytes()
    assert not (folder / "model.safetensors").is_symlink()
    assert model_identity(folder) == computed_identity(original)


def test_files_that_are_not_the_models_stay_where_they_are(original, tmp_path):
    others = {"secrets.json", "notes.txt", "trainer_state.json", "deploy_config.json", "pytorch_model.bin.index.json"}
    others |= {"wallet.model", "requirements.txt", "training_args.json"}
    for name in others:
        (original / name).write_text("{}")
    assert not {path.name for path in fetched(LocalModel(path=original), tmp_path / "out").iterdir()} & others


@pytest.mark.parametrize(
    "name",
    ["LICENSE", "LICENSE.txt", "NOTICE", "generation_config.json", "special_tokens_map.json", "added_tokens.json",
     "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
     "qwen.tiktoken", "tekken.json", "chat_template.json", "preprocessor_config.json", "processor_config.json"],
)  # fmt: skip
def test_files_that_are_the_models_are_copied(original, tmp_path, name):
    (original / name).write_text("{}")
    assert (fetched(LocalModel(path=original), tmp_path / "out") / name).is_file()


def test_the_licence_in_the_card_is_recorded(original, tmp_path):
    (original / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [en]\n---\n# Mine\n")
    folder = fetched(LocalModel(path=original), tmp_path / "out")
    assert json.loads((folder / "provenance.json").read_text())["source"]["license"] == "apache-2.0"
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize("change", [{"license": "Apache 2.0 <b>"}, {"base_model": "https://hub/owner/name"}])
def test_what_stands_in_a_card_is_checked(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        LocalModel(path="here", **change)


def test_provenance_has_no_path_of_this_machine_and_no_way_of_use(original, tmp_path):
    folder = fetched(LocalModel(path=original, dtype="bfloat16", allow_uncovered=True, license="mit"), tmp_path / "out")
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["source"] == {"source": "local", "path": "my-model"}
    assert set(provenance["files"]) == {path.name for path in folder.iterdir()} - {"provenance.json"}


def test_identity_is_of_weights_and_configuration_alone(original, tmp_path):
    first = model_identity(fetched(LocalModel(path=original), tmp_path / "first"))
    moved = shutil.move(original, tmp_path / "elsewhere")
    (moved / "tokenizer_config.json").write_text('{"new": 1}')
    assert model_identity(fetched(LocalModel(path=moved), tmp_path / "second")) == first
    save_file({"w": np.zeros((2, 3), np.float32)}, moved / "model.safetensors")
    assert model_identity(fetched(LocalModel(path=moved), tmp_path / "third")) != first


def test_a_fetched_folder_can_be_fetched_again(original, tmp_path):
    first = fetched(LocalModel(path=original), tmp_path / "first")
    second = fetched(LocalModel(path=first), tmp_path / "second")
    assert model_identity(second) == model_identity(first)
    assert "provenance.json" not in json.loads((second / "provenance.json").read_text())["files"]


def test_a_hub_model_is_a_copy_out_of_the_hubs_cache(original, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda _, **kwargs: asked.update(kwargs) or str(original))
    folder = fetched(HubModel(id="owner/name", revision=REVISION), tmp_path / "out")
    assert not any(glob.endswith((".bin", ".py", ".pt")) or glob == "*" for glob in asked["allow_patterns"])
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json", ".jinja"}
    assert json.loads((folder / "provenance.json").read_text())["source"]["revision"] == REVISION


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("model.safetensors", r"no model\*.safetensors .*pytorch_model\.bin"),
        ("config.json", "no config.json in it"),
        ("tokenizer.json", "no tokenizer in it, expected one of tokenizer.json"),
    ],
)
def test_an_incomplete_folder_is_refused(original, tmp_path, removed, message):
    (original / removed).unlink()
    with pytest.raises(SourceError, match=f"^{original}: {message}"):
        fetched(LocalModel(path=original), tmp_path / "out")
    assert not (tmp_path / "out" / "provenance.json").exists()


def test_advice_about_pickles_is_for_folders_that_have_some(original, tmp_path):
    for name in ("model.safetensors", "pytorch_model.bin"):
        (original / name).unlink()
    with pytest.raises(SourceError, match=rf"^{original}: no model\*\.safetensors in it$"):
        fetched(LocalModel(path=original), tmp_path / "out")


@pytest.mark.parametrize(
    ("offered", "facts"),
    [
        (["config.json", "pytorch_model.bin"], ["model*.safetensors", "pytorch_model.bin"]),
        (["config.json", "old/pytorch_model.bin"], ["model*.safetensors"]),
        (errors.OfflineModeIsEnabled("cannot\nreach it"), ["cannot reach it", "config.json"]),
    ],
)
def test_a_part_of_a_hub_model_is_told_from_one_without_weights(original, tmp_path, monkeypatch, offered, facts):
    def answer(*_, **__):
        if isinstance(offered, Exception):
            raise offered
        return offered

    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    shutil.copy(original / "config.json", snapshot)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda _, **__: str(snapshot))
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", answer)
    with pytest.raises(SourceError, match=r"^owner/name") as caught:
        fetched(HubModel(id="owner/name", revision=REVISION), tmp_path / "out")
    assert all(fact in str(caught.value) for fact in facts)
    assert "\n" not in str(caught.value)
    assert ("pytorch_model.bin" in str(caught.value)) == ("pytorch_model.bin" in facts)


@pytest.mark.parametrize("name", ["tokenizer.json", "extra.txt", "extra.safetensors", "pytorch_model.bin"])
def test_an_index_names_no_file_but_weights(original, tmp_path, name):
    torch.save({"v": torch.ones(2)}, original / name)
    index = {"weight_map": {"w": "model.safetensors", "v": name}}
    (original / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=rf"model\.safetensors\.index\.json .*{re.escape(name)}"):
        fetched(LocalModel(path=original), tmp_path / "out")


def test_a_missing_shard_is_refused(original, tmp_path):
    index = {"weight_map": {"w": "model.safetensors", "v": "model-00002-of-00002.safetensors"}}
    (original / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"model\.safetensors\.index\.json .*: model-00002-of-00002\.safetensors$"):
        fetched(LocalModel(path=original), tmp_path / "out")


def test_a_part_without_its_index_is_no_model(original, tmp_path):
    (original / "model.safetensors").rename(original / "model-00001-of-00001.safetensors")
    with pytest.raises(SourceError, match=rf"^{original}: no model\.safetensors or model\.safetensors\.index\.json"):
        fetched(LocalModel(path=original), tmp_path / "out")


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": null}', '{"weight_map": {"w": 1}}', '{"weight_map": ["a"]}', "{", "\xff"]
)
def test_a_damaged_index_is_refused(original, tmp_path, content):
    (original / "model.safetensors.index.json").write_text(content, encoding="latin-1")
    with pytest.raises(SourceError, match=rf"^{original}: model\.safetensors\.index\.json(:| is) damaged"):
        fetched(LocalModel(path=original), tmp_path / "out")


def test_licences_and_tiktoken_vocabularies_travel(original, tmp_path):
    travelling = {"LICENSE", "LICENCE.md", "NOTICE.txt", "qwen.tiktoken"}
    for name in travelling:
        (original / name).write_text(name)
    folder = fetched(LocalModel(path=original), tmp_path / "out")
    assert all((folder / name).read_text() == name for name in travelling)
    assert travelling <= set(json.loads((folder / "provenance.json").read_text())["files"])


def test_truncated_weights_are_refused(original, tmp_path):
    content = (original / "model.safetensors").read_bytes()
    (original / "model.safetensors").write_bytes(content[:-4])
    with pytest.raises(SourceError, match=r"model\.safetensors is truncated or damaged"):
        fetched(LocalModel(path=original), tmp_path / "out")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match=f"{tmp_path}/nowhere: no such folder"):
        fetched(LocalModel(path=tmp_path / "nowhere"), tmp_path / "out")


@pytest.mark.parametrize("content", [None, "[]", '{"kind": "text", "sha256": "0"}', '{"kind": "model"}', "{"])
def test_a_folder_without_provenance_has_no_identity(tmp_path, content):
    if content is not None:
        (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"provenance\.json"):
        model_identity(tmp_path)


def test_a_model_is_no_text(original, tmp_path):
    folder = fetched(LocalModel(path=original), tmp_path / "out")
    with pytest.raises(ArtifactError, match="expected 'text'"):
        text_identity(folder)


@pytest.mark.parametrize(
    "section",
    [
        {"source": "disk", "path": "x"},
        {"source": "local", "path": "x", "dtype": "float64"},
        {"source": "hub", "id": "a/b", "revision": "main"},
        {"source": "wheel", "requirement": "a==1", "sha256": "0" * 64, "member": "a.bin"},
        {"source": "local", "path": "x", "colour": "red"},
    ],
)
def test_unusable_settings_are_refused(section):
    with pytest.raises(ValidationError):
        TypeAdapter(ModelSource).validate_python(section)


@pytest.mark.parametrize("within", ["", "text_config."])
@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer"])
def test_more_blocks_than_tensors_are_refused(key, within, original, tmp_path):
    config = {key: 10**9}
    (original / "config.json").write_text(json.dumps({"text_config": config} if within else config))
    with pytest.raises(ModelError, match=rf"my-model: config\.json: {within}{key} = 1000000000, .* 1 tensors"):
        fetched(LocalModel(path=original), tmp_path / "out")
