"""The command that says whether a folder is still pruned."""

import torch
from commands import prunelib
from families import save, tiny_model

from prunelib.masks.packed import write_masks
from prunelib.masks.patterns import NOfM
from prunelib.masks.selection import select
from prunelib.model.masked import apply_masks
from prunelib.model.structure import find_layers


def test_the_status_says_whether_layers_broke(tmp_path):
    model, pattern = tiny_model("llama"), NOfM(keep=2, group=4)
    layers = find_layers(model).layers
    masks = {layer.name: select(layer.weight(model).abs(), pattern) for layer in layers}
    file = tmp_path / "masks.safetensors"
    write_masks(file, masks, {"pattern": pattern.model_dump(mode="json")})
    apply_masks(model, masks)
    folder = save(model, tmp_path / "model")
    done = prunelib("verify", folder, "--masks", file)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"0 of {len(layers)} layers")
    assert "2:4" in done.stdout
    with torch.no_grad():
        layers[5].weight(model)[~masks[layers[5].name]] = 1.0
    save(model, tmp_path / "model")
    done = prunelib("verify", folder, "--masks", tmp_path)
    assert done.exit_code == 2
    first, second = done.stdout.splitlines()
    assert first.startswith(f"1 of {len(layers)} layers")
    assert second.startswith(f"{layers[5].name}: {int((~masks[layers[5].name]).sum()):,} of ")
    done = prunelib("verify", folder)
    assert done.exit_code == 2
    assert "model/masks.safetensors" in done.stderr
