"""What is found in a model, or a folder, that was to be pruned: layers that broke, and by how many weights."""

import json
from pathlib import Path

import pytest
import torch
from families import DEEPSEEK, DENSE, MIXTURE, PARTIAL, RENAMED, SHARED, TUPLES, save, tiny_model
from safetensors.torch import load_file, save_file

from prunelib.errors import ArtifactError, ModelError, PatternError
from prunelib.export.folder import export_model
from prunelib.export.verification import verify
from prunelib.masks.allocation import SparsityTable
from prunelib.masks.packed import write_masks
from prunelib.masks.patterns import NOfM, PerLayer, PerRow
from prunelib.masks.pruned import Pruned
from prunelib.masks.selection import select
from prunelib.model.masked import apply_masks
from prunelib.model.structure import find_layers
from prunelib.model.weights import stored_slice

NM24 = NOfM(keep=2, group=4)
PROVENANCE = {"pattern": NM24.model_dump(mode="json")}


def by_magnitude(model, pattern=NM24):
    masks = {}
    for layer in find_layers(model).layers:
        weight = layer.weight(model)
        masks[layer.name] = select((weight.T if layer.transposed else weight).abs(), pattern)
    return masks


def exported(tmp_path, family, shard="1GB"):
    """A folder pruned by 2:4 masks, its index and masks."""
    model = tiny_model(family)
    index = find_layers(model, save(model, tmp_path / "dense", shard))
    model, masks = tiny_model(family), {}
    for layer in index.layers:
        weight = layer.weight(model)
        masks[layer.name] = select((weight.T if layer.transposed else weight).abs(), NM24)
    export_model(tmp_path / "dense", tmp_path / "pruned", index, Pruned(masks, {}), PROVENANCE, "# card\n")
    return tmp_path / "pruned", index, masks


def rewrite(folder, change):
    """Change the tensors of a folder of one file."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("family", [*DENSE, *MIXTURE, *TUPLES, *SHARED, *RENAMED, *DEEPSEEK, *PARTIAL])
def test_one_weight_that_came_back_is_found_in_its_layer(family: str, tmp_path: Path) -> None:
    folder, index, masks = exported(tmp_path, family)
    found = verify(folder, folder)
    assert found.intact
    assert found.pattern == NM24
    assert [layer.name for layer in found.layers] == sorted(masks)
    assert sum(layer.pruned for layer in found.layers) == sum(int((~mask).sum()) for mask in masks.values())
    assert sum(layer.groups for layer in found.layers) == sum(mask.numel() // 4 for mask in masks.values())
    for layer in index.layers[:: max(1, len(index.layers) // 5)]:
        row, column = (~masks[layer.name]).nonzero()[-1].tolist()

        def spoil(tensors, layer=layer, place=(row, column), value=0.25):
            stored = stored_slice(tensors[layer.tensor], layer)
            (stored.T if layer.transposed else stored)[place] = value

        rewrite(folder, spoil)
        (broken,) = verify(folder, folder).broken
        assert (broken.name, broken.nonzero, broken.overfull) == (layer.name, 1, 1)
        assert layer.name in str(verify(folder, folder))
        rewrite(folder, lambda tensors, spoil=spoil: spoil(tensors, value=0.0))
    assert verify(folder, masks).intact


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_model_in_memory_is_read_like_its_folder(family, tmp_path):
    model = tiny_model(family)
    masks = by_magnitude(model)
    dense = verify(model, masks, "2:4")
    assert [layer.name for layer in dense.broken] == list(masks)
    assert all(layer.nonzero == layer.pruned and layer.overfull == layer.groups for layer in dense.layers)
    assert verify(save(model, tmp_path / "dense"), masks, NM24) == dense
    apply_masks(model, masks)
    assert verify(model, masks, "2:4").intact
    assert verify(save(model, tmp_path / "pruned"), masks, "2:4") == verify(model, masks, "2:4")


def test_several_files_and_names_without_prefix(tmp_path):
    folder, _, masks = exported(tmp_path, "gpt2", shard="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert verify(folder, {name.removeprefix("transformer."): mask for name, mask in masks.items()}).intact
    folder, _, masks = exported(tmp_path / "old", "gpt2")
    rewrite(
        folder, lambda tensors: [tensors.update({n.removeprefix("transformer."): tensors.pop(n)}) for n in [*tensors]]
    )
    assert verify(folder, masks).intact


@pytest.mark.parametrize("pattern", [NM24, PerRow(sparsity=0.5), PerLayer(sparsity=0.5), None])
def test_groups_are_those_of_the_pattern(pattern):
    model = tiny_model("llama")
    masks = by_magnitude(model, pattern or NM24)
    apply_masks(model, masks)
    found = verify(model, masks, pattern)
    assert found.intact
    layers = {layer.name: layer for layer in find_layers(model).layers}
    for check in found.layers:
        rows, inputs = layers[check.name].rows, layers[check.name].inputs
        size = pattern.groups(rows, inputs).size if pattern else rows * inputs + 1
        assert check.groups == rows * inputs // size


def test_each_layer_has_its_own_count_under_an_allocation():
    model = tiny_model("llama")
    layers = find_layers(model).layers
    masks = {
        layer.name: select(layer.weight(model).abs(), PerRow(sparsity=0.25 if layer.block else 0.75))
        for layer in layers
    }
    apply_masks(model, masks)
    pattern = PerRow(sparsity=0.5, allocation=SparsityTable(sparsities={"*.layers.0.*": 0.75}))
    assert verify(model, masks, pattern).intact


def test_masks_that_break_the_pattern_are_no_proof():
    model = tiny_model("llama")
    masks = by_magnitude(model, PerRow(sparsity=0.5))
    apply_masks(model, masks)
    found = verify(model, masks, "2:4")
    assert all(layer.nonzero == 0 for layer in found.layers)
    assert all(layer.overfull for layer in found.broken)
    assert len(found.broken) == len(masks)


def test_a_negative_zero_is_zero_and_nan_is_not():
    model = tiny_model("llama")
    masks = by_magnitude(model)
    apply_masks(model, masks)
    layer = find_layers(model).layers[3]
    layer.weight(model)[~masks[layer.name]] *= -1
    assert verify(model, masks).intact
    layer.weight(model)[~masks[layer.name]] = float("nan")
    (broken,) = verify(model, masks).broken
    assert (broken.name, broken.nonzero) == (layer.name, broken.pruned)


def quantised(folder, dtype):
    """Store the matrices of a folder with a scale for each row."""

    def change(tensors):
        for name in [name for name in tensors if "proj" in name]:
            scale = tensors[name].abs().amax(dim=1, keepdim=True) / 100
            scaled = tensors[name] / scale
            tensors[name] = (scaled.round() if dtype is torch.int8 else scaled).to(dtype)
            tensors[f"{name}_scale"] = scale

    rewrite(folder, change)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_symmetric_quantisation_keeps_the_zeros(dtype, tmp_path):
    folder, index, masks = exported(tmp_path, "llama")
    quantised(folder, dtype)
    assert verify(folder, folder).intact
    layer = index.layers[2]

    def spoil(tensors):
        tensors[layer.tensor].view(torch.int8)[~masks[layer.name]] = 9

    rewrite(folder, spoil)
    (broken,) = verify(folder, folder).broken
    assert (broken.name, broken.nonzero) == (layer.name, int((~masks[layer.name]).sum()))


def test_quantisation_whose_zeros_cannot_be_read_is_refused(tmp_path):
    folder, index, masks = exported(tmp_path, "llama")
    quantised(folder, torch.int8)
    tensor = index.layers[0].tensor
    rewrite(folder, lambda tensors: tensors.update({f"{tensor}_zero_point": torch.ones(4, 1)}))
    with pytest.raises(ModelError, match="zero_point"):
        verify(folder, folder)
    rewrite(folder, lambda tensors: tensors.update({tensor: tensors[tensor].view(torch.uint8)}))
    rewrite(folder, lambda tensors: [tensors.pop(f"{tensor}_zero_point")])
    with pytest.raises(ModelError, match="uint8"):
        verify(folder, folder)
    rewrite(folder, lambda tensors: tensors.update({f"{tensor}_packed": tensors.pop(tensor)}))
    with pytest.raises(ArtifactError, match=f"{tensor}_packed"):
        verify(folder, folder)
    model = tiny_model("llama")
    model.is_quantized = True
    with pytest.raises(ModelError, match="quantised"):
        verify(model, masks)


def test_what_does_not_fit_is_named(tmp_path):
    folder, _, masks = exported(tmp_path, "llama")
    name, first = min(masks), masks[min(masks)]
    with pytest.raises(ArtifactError, match=r"model\.layers\.7\.x"):
        verify(folder, {"model.layers.7.x": first})
    with pytest.raises(PatternError, match=name):
        verify(folder, {name: first[:3]})
    with pytest.raises(PatternError, match=name):
        verify(tiny_model("llama"), {name: first[:3]})
    with pytest.raises(ArtifactError, match="nowhere"):
        verify(folder, tmp_path / "nowhere.safetensors")
    with pytest.raises(ArtifactError, match="nowhere"):
        verify(tmp_path / "nowhere", masks)
    with pytest.raises(ModelError, match="Linear"):
        verify(torch.nn.Linear(2, 2), masks)
    write_masks(tmp_path / "odd.safetensors", masks, {"pattern": {"kind": "of_my_own"}})
    with pytest.raises(ArtifactError, match=r"odd\.safetensors.*of_my_own"):
        verify(folder, tmp_path / "odd.safetensors")
    (folder / "config.json").write_text(json.dumps({}))
    assert verify(str(folder), str(folder / "masks.safetensors")).intact


@pytest.mark.parametrize(
    "change", [torch.Tensor.byte, torch.Tensor.long, torch.Tensor.float, torch.Tensor.tolist, lambda mask: mask[0]]
)
def test_masks_of_other_numbers_prove_nothing(change, tmp_path):
    folder, _, masks = exported(tmp_path, "llama")
    name = min(masks)
    for model in (folder, tiny_model("llama")):
        with pytest.raises(PatternError, match=name):
            verify(model, masks | {name: change(masks[name])})


@pytest.mark.parametrize("pattern", [0, 0.5, "", "half", ["2:4"], {}])
def test_a_pattern_that_is_none_is_not_passed_over(pattern, tmp_path):
    folder, _, masks = exported(tmp_path, "llama")
    for given in (masks, folder):
        with pytest.raises(PatternError, match=r"^pattern"):
            verify(folder, given, pattern)
