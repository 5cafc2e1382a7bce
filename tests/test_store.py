import errno
import os
from pathlib import Path

import pytest
import torch

from prunelib import store
from prunelib.errors import ArtifactError


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "a.safetensors"
    store.write_tensors(
        path, {"x": torch.arange(6).view(2, 3).T, "a": torch.ones(1)}, "gram", {"model": "abc", "tokens": 7}
    )
    return path


def test_tensors_and_provenance_come_back(written):
    assert store.read_provenance(written, "gram") == {"kind": "gram", "format": 1, "model": "abc", "tokens": 7}
    torch.testing.assert_close(store.read_tensors(written, "gram")["x"], torch.arange(6).view(2, 3).T)


def test_the_same_contents_give_the_same_bytes(written, tmp_path):
    again = tmp_path / "b.safetensors"
    tensors = store.read_tensors(written, "gram")
    store.write_tensors(again, dict(reversed(tensors.items())), "gram", {"tokens": 7, "model": "abc"})
    assert again.read_bytes() == written.read_bytes()


def test_a_foreign_kind_is_refused(written):
    with pytest.raises(ArtifactError, match="expected a mask artifact of prunelib, found gram"):
        store.read_tensors(written, "mask")


def test_a_safetensors_file_of_others_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match="found another file"):
        store.read_tensors(tmp_path / "x.safetensors", "mask")


@pytest.mark.parametrize("size", [0, 4, 40, -1])
def test_a_truncated_file_is_refused(written, size):
    written.write_bytes(written.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=r"a\.safetensors: truncated, damaged or not a safetensors file"):
        store.read_tensors(written, "gram")


def test_a_missing_file_names_the_remedy(tmp_path):
    with pytest.raises(ArtifactError, match="no such file; run the stage"):
        store.read_tensors(tmp_path / "none", "gram")
    with pytest.raises(ArtifactError, match="no such file; run the stage"):
        store.read_json(tmp_path / "none")


def test_provenance_that_differs_names_both_values(written):
    header = store.read_provenance(written, "gram")
    store.expect_provenance(written, header, {"model": "abc"})
    with pytest.raises(ArtifactError, match="its tokens is 7, but 8 was expected"):
        store.expect_provenance(written, header, {"tokens": 8})


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EACCES])
def test_a_failed_write_is_one_line_and_leaves_what_was_there(written, failure, monkeypatch):
    before = written.read_bytes()

    def fail(*_):
        raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(store, "_sync", fail)
    with pytest.raises(ArtifactError, match=r"cannot be written \(.*\); nothing was changed"):
        store.write_tensors(written, {"x": torch.zeros(2)}, "gram", {})
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_a_full_disk_is_one_line():
    with pytest.raises(ArtifactError, match="big: cannot be written"), store._writing(Path("big")):
        Path("/dev/full").write_bytes(b"x" * 100_000)


def test_an_interrupted_folder_leaves_nothing(tmp_path):
    target, scratch = tmp_path / "out", tmp_path / "scratch"

    def write_half():
        with store.replacing_folder(target, scratch) as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not target.exists()
    assert list(scratch.iterdir()) == []


def test_a_finished_folder_replaces_the_old_one(tmp_path):
    target = tmp_path / "out"
    for text in ("old", "new"):
        with store.replacing_folder(target, tmp_path / "scratch") as folder:
            (folder / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["new"]


def test_json_refuses_nan_and_damage(tmp_path):
    path = tmp_path / "a.json"
    store.write_json(path, {"b": 1, "a": [1.5]})
    assert path.read_text() == '{\n  "a": [\n    1.5\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write_json(path, {"a": float("nan")})
    assert store.read_json(path)["b"] == 1
    path.write_text("{")
    with pytest.raises(ArtifactError, match="damaged or not JSON"):
        store.read_json(path)
