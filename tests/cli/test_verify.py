"""The command that says whether a folder is still pruned."""

import sys

import pytest
import torch
from families import save, tiny_model

from prunelib.cli import verify
from prunelib.masks.packed import write_masks
from prunelib.masks.patterns import NOfM, select
from prunelib.model.masked import apply_masks
from prunelib.model.structure import find_layers


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["verify", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        verify.main()
    return ended.value.code


def test_the_status_says_whether_layers_broke(tmp_path, monkeypatch, capsys):
    model, pattern = tiny_model("llama"), NOfM(keep=2, group=4)
    layers = find_layers(model).layers
    masks = {layer.name: select(layer.weight(model).abs(), pattern) for layer in layers}
    file = tmp_path / "masks.safetensors"
    write_masks(file, masks, {"pattern": pattern.model_dump(mode="json")})
    apply_masks(model, masks)
    folder = save(model, tmp_path / "model")
    assert run(monkeypatch, folder, "--masks", file) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"0 of {len(layers)} layers")
    assert "2:4" in printed
    with torch.no_grad():
        layers[5].weight(model)[~masks[layers[5].name]] = 1.0
    save(model, tmp_path / "model")
    assert run(monkeypatch, folder, "--masks", tmp_path) == 2
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"1 of {len(layers)} layers")
    assert second.startswith(f"{layers[5].name}: {int((~masks[layers[5].name]).sum()):,} of ")
    assert run(monkeypatch, folder) == 2
    assert "model/masks.safetensors" in capsys.readouterr().err
