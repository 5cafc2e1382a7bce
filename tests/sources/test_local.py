"""Files of this machine that cannot be had: one line that names them."""

from pathlib import Path

import pytest

from prunelib.errors import SourceError
from prunelib.sources.local import copy_files, read_files
from prunelib.sources.models import LocalModel
from prunelib.sources.tasks import LocalTasks
from prunelib.sources.texts import LocalText


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.md"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def locked(folder, monkeypatch):
    """A file that may not be opened, not even by root, who may open any."""
    path, opened = folder / "b.txt", Path.open

    def refusing(self, *args, **kwargs):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refusing)
    return path


def test_files_are_copied_by_name(folder, tmp_path):
    (tmp_path / "out").mkdir()
    copy_files(folder, ["*.txt"], tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "a.txt": "a.txt",
        "b.txt": "b.txt",
    }


def test_a_file_that_may_not_be_read_is_named(folder, tmp_path, locked):
    line = rf"^{locked}: cannot be read \(Permission denied\)$"
    with pytest.raises(SourceError, match=line):
        copy_files(folder, ["*.txt"], tmp_path)
    with pytest.raises(SourceError, match=line):
        read_files([f"{folder}/*.txt"])


def test_a_folder_that_may_not_be_read_is_named(folder, tmp_path, monkeypatch):
    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(SourceError, match=rf"^{folder}: cannot be read \(Permission denied\)$"):
        copy_files(folder, ["*.txt"], tmp_path)


def test_a_target_that_cannot_be_written_is_not_the_sources_fault(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        copy_files(folder, ["*.txt"], tmp_path / "nowhere")


@pytest.mark.parametrize("glob", [".", "..", "/", "**", "a**/b", "a\0b", "no\nsuch", "~nobody/x", "[", "*" * 5000])
def test_a_glob_that_names_no_file_is_one_line(glob, folder, monkeypatch):
    monkeypatch.chdir(folder / "..")
    with pytest.raises(SourceError) as caught:
        read_files([glob])
    assert glob in str(caught.value) or repr(glob) in str(caught.value)


def test_a_file_counts_once_whatever_its_path(folder, monkeypatch):
    (folder / "a[1].txt").write_text("brackets")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    found = read_files(["../folder/a.txt", str(folder / "*.txt"), "a[1].txt", "~/c.md", "a.txt"])
    assert list(found.values()) == [b"a.txt", b"brackets", b"b.txt", b"c.md"]
    assert "a.txt" in found


def test_the_users_folder_may_be_written_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LocalModel(path="~/model").local_paths() == [tmp_path / "model"]
    assert LocalTasks(files={"own": "~/own.jsonl"}).local_paths() == [tmp_path / "own.jsonl"]
    assert LocalText(members=("~/texts/*.txt",), held_out_every_nth=2).local_paths() == [tmp_path / "texts"]
