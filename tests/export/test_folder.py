"""Exported folders: loaded by transformers alone, equal to masks applied in memory, dense everywhere else."""

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from families import DEEPSEEK, DENSE, MIXTURE, PARTIAL, RENAMED, SHARED, TUPLES, random_windows, save, tiny_model
from safetensors import safe_open

from prunelib.errors import ArtifactError, ModelError, PatternError
from prunelib.export import folder as export
from prunelib.export.folder import check_groups, export_model
from prunelib.export.semi_structured import unconvertible
from prunelib.masks.packed import read_masks
from prunelib.masks.patterns import NOfM
from prunelib.masks.pruned import Pruned
from prunelib.masks.selection import select
from prunelib.model.layers import LayerIndex
from prunelib.model.structure import find_layers, load_model
from prunelib.model.weights import apply_pruned, read_weight, tensor_files
from prunelib.runtime.hashing import sha256_file

PROVENANCE = {"method": "sparseswaps", "pattern": "2:4"}
CARD = "# A pruned model\n"
INDEX = "model.safetensors.index.json"
ADDED = {"provenance.json", "masks.safetensors", "README.md", INDEX}


def dense(folder: Path, family: str = "llama", dtype: torch.dtype = torch.float32, shard: str = "1GB") -> LayerIndex:
    model = tiny_model(family, dtype=dtype)
    return find_layers(model, save(model, folder, shard))


def halves(index: LayerIndex) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {layer.name: torch.rand(layer.rows, layer.inputs, generator=draw) < 0.5 for layer in index.layers}


def raw_tensors(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, file in tensor_files(folder).items():
        with safe_open(file, framework="pt") as stream:
            assert stream.metadata() == {"format": "pt"}
            tensors[name] = stream.get_tensor(name)
    return tensors


@pytest.mark.parametrize("family", [*DENSE, *MIXTURE, *TUPLES, *SHARED, *RENAMED, *DEEPSEEK, *PARTIAL])
def test_the_export_is_the_masked_model(family: str, tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder, family)
    masks = halves(index)
    export_model(folder, target, index, Pruned(masks, {}), PROVENANCE, CARD)
    exported, masked = (load_model(path, "float32", "cpu") for path in (target, folder))
    apply_pruned(masked, index.layers, Pruned(masks, {}))
    ids = random_windows(samples=2, length=12).long()
    assert torch.equal(exported(ids).logits, masked(ids).logits)
    assert find_layers(exported, target) == index
    assert tensor_files(target).keys() == tensor_files(folder).keys() >= {layer.tensor for layer in index.layers}
    assert all(torch.equal(mask, masks[name]) for name, mask in read_masks(target / "masks.safetensors", {}).items())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_updated_weights_are_exported(family: str, tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder, family)
    masks, updated = halves(index), index.layers[0]
    weight = (2 * read_weight(folder, updated)).masked_fill(~masks[updated.name], 0)
    export_model(folder, target, index, Pruned(masks, {updated.name: weight}), PROVENANCE, CARD)
    torch.testing.assert_close(read_weight(target, updated), weight, rtol=0, atol=0)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_files_keep_names_dtypes_and_every_other_byte(
    family: str, dtype: torch.dtype, shard: str, tmp_path: Path
) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder, family, dtype, shard)
    masks = halves(index)
    before = {file.name: sha256_file(file) for file in folder.iterdir()}
    export_model(folder, target, index, Pruned(masks, {}), PROVENANCE, CARD)
    assert {file.name: sha256_file(file) for file in folder.iterdir()} == before
    assert {file.name for file in target.iterdir()} == {*before, *ADDED}
    old, new = raw_tensors(folder), raw_tensors(target)
    assert old.keys() == new.keys()
    pruned = {layer.tensor for layer in index.layers}
    for name in old.keys() - pruned:
        assert torch.equal(old[name].view(torch.uint8), new[name].view(torch.uint8))
    for layer in index.layers:
        expected = torch.where(masks[layer.name], read_weight(folder, layer), torch.zeros((), dtype=dtype))
        assert new[layer.tensor].dtype == dtype
        assert torch.equal(read_weight(target, layer).view(torch.uint8), expected.view(torch.uint8))


def test_the_mask_is_found_again_up_to_zeros_of_the_dense_model(tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    model = tiny_model("llama")
    model.model.layers[0].mlp.up_proj.weight[:, 5] = 0
    index = find_layers(model, save(model, folder))
    masks = halves(index)
    export_model(folder, target, index, Pruned(masks, {}), PROVENANCE, CARD)
    for layer in index.layers:
        found, mask = read_weight(target, layer) != 0, masks[layer.name]
        assert not (found & ~mask).any()
        kept_zeros = mask[:, 5].sum() if layer.name == "model.layers.0.mlp.up_proj" else 0
        assert (mask & ~found).sum() == kept_zeros


def test_small_files_travel_and_other_weights_do_not(tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder)
    for name in ("tokenizer.json", "merges.txt", "chat_template.jinja", "LICENSE", "spiece.model", "provenance.json"):
        (folder / name).write_text('{"of": "the dense model"}')
    others = ("secrets.json", "notes.txt", "trainer_state.json", "pytorch_model.bin.index.json", "wandb_config.json")
    for name in (
        "pytorch_model.bin",
        "model.gguf",
        "consolidated.safetensors",
        "modeling_mine.py",
        "README.md",
        *others,
    ):
        (folder / name).write_text("dense weights, code, or a card of the dense model")
    export_model(folder, target, index, Pruned(halves(index), {}), PROVENANCE, CARD)
    assert {file.name for file in target.iterdir()} == ADDED | {
        "LICENSE",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "spiece.model",
        "tokenizer.json",
    }
    assert (target / "README.md").read_text() == CARD
    assert json.loads((target / "provenance.json").read_text()) == {**PROVENANCE, "kind": "pruned model"}
    assert (target / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_the_index_of_a_single_file_names_its_tensors_and_no_mask(tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder)
    (folder / INDEX).write_text('{"weight_map": {"of": "another-00001-of-00001.safetensors"}}')
    export_model(folder, target, index, Pruned(halves(index), {}), PROVENANCE, CARD)
    found = json.loads((target / INDEX).read_text())
    with safe_open(target / "model.safetensors", framework="pt") as stream:
        sizes = {name: stream.get_tensor(name).nbytes for name in stream.keys()}  # noqa: SIM118 - no mapping
    assert found == {
        "weight_map": dict.fromkeys(sizes, "model.safetensors"),
        "metadata": {"total_size": sum(sizes.values())},
    }
    (target / "model.safetensors").rename(target / "model-00001-of-00001.safetensors")  # loaders without our own rule
    (target / INDEX).write_text(json.dumps(found).replace("model.safetensors", "model-00001-of-00001.safetensors"))
    assert find_layers(load_model(target, "float32", "cpu"), target) == index


def test_the_index_of_several_files_is_that_of_the_dense_model(tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder, shard="20KB")
    export_model(folder, target, index, Pruned(halves(index), {}), PROVENANCE, CARD)
    assert (target / INDEX).read_bytes() == (folder / INDEX).read_bytes()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600), (0o000, 0o666)])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_files_have_the_mode_of_any_new_file(umask: int, mode: int, shard: str, tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder, shard=shard)
    before = os.umask(umask)
    try:
        export_model(folder, target, index, Pruned(halves(index), {}), PROVENANCE, CARD)
    finally:
        os.umask(before)
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in target.iterdir()} == {
        file.name: mode for file in target.iterdir()
    }


def test_only_a_new_or_empty_target_is_written(tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder)
    target.mkdir()
    (target / "mine.txt").write_text("keep")
    with pytest.raises(ArtifactError, match="pruned: exists already, expected a new or empty folder"):
        export_model(folder, target, index, Pruned(halves(index), {}), PROVENANCE, CARD)
    with pytest.raises(ArtifactError, match=r"mine\.txt: exists already"):
        export_model(folder, target / "mine.txt", index, halves(index), PROVENANCE, CARD)
    assert (target / "mine.txt").read_text() == "keep"
    (target / "mine.txt").unlink()
    export_model(folder, target, index, Pruned(halves(index), {}), PROVENANCE, CARD)
    assert (target / "model.safetensors").is_file()


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, target = tmp_path / "dense", tmp_path / "out" / "pruned"
    index = dense(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_json", full)
    with pytest.raises(ArtifactError, match=r"pruned: cannot be written \(No space left on device\)"):
        export_model(folder, target, index, Pruned(halves(index), {}), PROVENANCE, CARD)
    assert list(target.parent.iterdir()) == []


def test_masks_of_another_model_write_nothing(tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder)
    with pytest.raises(PatternError, match="masks: 14 of 14 layers"):
        export_model(folder, target, index, Pruned({}, {}), PROVENANCE, CARD)
    assert not target.exists()


def test_a_damaged_dense_model_is_named(tmp_path: Path) -> None:
    folder, target = tmp_path / "dense", tmp_path / "pruned"
    index = dense(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"dense/model\.safetensors: truncated"):
        export_model(folder, target, index, Pruned(halves(index), {}), PROVENANCE, CARD)
    assert not target.exists()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_groups_are_checked_in_what_was_written(family: str, tmp_path: Path) -> None:
    folder, target, pattern = tmp_path / "dense", tmp_path / "pruned", NOfM(keep=2, group=4)
    index = dense(folder, family)
    masks = {layer.name: select(read_weight(folder, layer).abs(), pattern) for layer in index.layers}
    export_model(folder, target, index, Pruned(masks, {}), PROVENANCE, CARD)
    assert check_groups(target, index.layers, pattern).startswith(f"all {len(index.layers)} matrices satisfy 2:4")
    with pytest.raises(ModelError, match="keeps more than 1 of 4 weights"):
        check_groups(target, index.layers, NOfM(keep=1, group=4))


def test_sparse_units_are_asked_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pattern = tmp_path / "dense", NOfM(keep=2, group=4)
    model = tiny_model("llama")
    for layer in find_layers(model, save(model, folder)).layers:
        layer.weight(model).mul_(select(layer.weight(model).abs(), pattern))
    index = find_layers(model, save(model, folder))
    monkeypatch.setattr(export, "has_sparse_units", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)
    reasons = iter([None] * 13 + ["too small"])
    monkeypatch.setattr(export, "unconvertible", lambda _: next(reasons))
    found = check_groups(folder, index.layers, pattern).splitlines()
    assert found[0].endswith(" 13 of them")
    assert found[1:] == [f"{index.layers[-1].name}: too small"]


def test_a_weight_that_does_not_convert_says_why() -> None:
    weight = torch.randn(32, 64).bfloat16()
    assert isinstance(unconvertible(weight * select(weight.abs(), NOfM(keep=2, group=4))), str)
