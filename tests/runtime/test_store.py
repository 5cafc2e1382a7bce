import errno
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prunelib.errors import ArtifactError
from prunelib.runtime import atomic, store


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "a.safetensors"
    store.write_tensors(
        path, {"x": torch.arange(6).view(2, 3).T, "a": torch.ones(1)}, "gram", {"model": "abc", "tokens": 7}
    )
    return path


@pytest.fixture
def old_folder(tmp_path):
    """A folder named ``out`` that holds one file."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    return tmp_path / "out"


def contents(folder):
    """All files beside and in a folder, hidden ones too."""
    files = [path for path in folder.parent.rglob("*") if path.is_file()]
    return {path.relative_to(folder.parent).as_posix(): path.read_text() for path in files}


def in_another_process(code):
    code = "import os\nfrom pathlib import Path\nfrom prunelib.runtime import atomic, store\n" + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_tensors_and_provenance_come_back(written):
    header = store.read_provenance(written, "gram")
    assert (header["kind"], header["model"], header["tokens"]) == ("gram", "abc", 7)
    assert header["checksums"].keys() == store.read_tensors(written, "gram").keys()
    torch.testing.assert_close(store.read_tensors(written, "gram")["x"], torch.arange(6).view(2, 3).T)


def test_the_same_contents_give_the_same_bytes(written, tmp_path):
    again = tmp_path / "b.safetensors"
    tensors = store.read_tensors(written, "gram")
    store.write_tensors(again, dict(reversed(tensors.items())), "gram", {"tokens": 7, "model": "abc"})
    assert again.read_bytes() == written.read_bytes()


def test_a_foreign_kind_is_refused(written):
    with pytest.raises(ArtifactError, match="expected a mask artifact of prunelib, found gram"):
        store.read_tensors(written, "mask")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"prunelib": "[]"}, {"prunelib": "null"}])
def test_a_safetensors_file_of_others_is_refused(tmp_path, metadata):
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors", metadata)
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


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_failed_write_is_one_line_and_leaves_what_was_there(written, failure, monkeypatch):
    before = written.read_bytes()

    def fail(*_):
        raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(atomic, "_sync", fail)
    with pytest.raises(ArtifactError, match=r"cannot be written \(.*\); nothing was changed"):
        store.write_tensors(written, {"x": torch.zeros(2)}, "gram", {})
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_what_gets_its_name_is_on_the_disk_before_and_the_name_after(tmp_path, monkeypatch):
    events, sync, rename, replace = [], atomic._sync, Path.rename, Path.replace

    def noting(what, act):
        return lambda path, *to: events.append((what, *to, path)) or act(path, *to)

    monkeypatch.setattr(atomic, "_sync", noting("synced", sync))
    monkeypatch.setattr(Path, "rename", noting("named", rename))
    monkeypatch.setattr(Path, "replace", noting("named", replace))
    with atomic.replacing_folder(tmp_path / "folder") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
    named = events.index(("named", tmp_path / "folder", folder))
    assert {("synced", path) for path in (folder, folder / "deep", folder / "deep" / "file")} == set(events[:named])
    assert events[named + 1 :] == [("synced", tmp_path)]
    events.clear()
    with atomic.replacing(tmp_path / "file") as file:
        file.write_text("x")
    assert events == [("synced", file), ("named", tmp_path / "file", file), ("synced", tmp_path)]


@pytest.mark.parametrize(
    "write", ["store.write_text(path, 'x' * 100_000)", "store.write_tensors(path, big, 'gram', {})"]
)
def test_a_disk_without_room_is_one_line_and_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "a"
    path.write_text("old")
    done = in_another_process(
        f"""
        import resource, torch
        path, big = Path({str(path)!r}), {{"x": torch.zeros(100_000)}}
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        {write}
        """
    )
    assert done.stderr.splitlines()[-1].startswith(f"prunelib.errors.ArtifactError: {path}: cannot be written (")
    assert "File too large" in done.stderr
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("a", "old")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device_is_one_line(tmp_path):
    with (
        pytest.raises(ArtifactError, match=r"big: cannot be written \(No space left"),
        atomic.replacing(tmp_path / "big"),
    ):
        Path("/dev/full").write_bytes(b"x" * 100_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("replacing", [atomic.replacing, atomic.replacing_folder])
@pytest.mark.parametrize("deeper", ["", "deeper"])
def test_a_parent_that_is_a_file_is_one_line(tmp_path, replacing, deeper):
    (tmp_path / "parent").write_text("file")
    target = tmp_path / "parent" / deeper / "out"
    with pytest.raises(ArtifactError, match=rf"^{target}: cannot be written \(.*\); nothing was changed$"):
        replacing(target).__enter__()
    assert (tmp_path / "parent").read_text() == "file"


@pytest.mark.parametrize("replacing", [atomic.replacing, atomic.replacing_folder])
def test_a_fault_of_the_files_that_a_writer_reads_is_not_the_targets(tmp_path, replacing):
    with pytest.raises(PermissionError, match="source"), replacing(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "denied", "source")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ValueError, OSError(errno.ENOSPC, "full")])
def test_an_interrupted_folder_leaves_what_was_there(old_folder, fault):
    def write_half():
        with atomic.replacing_folder(old_folder) as folder:
            (folder / "half").write_text("half")
            raise fault

    with pytest.raises((KeyboardInterrupt, ValueError, ArtifactError)):
        write_half()
    assert contents(old_folder) == {"out/old": "old"}


def test_a_finished_folder_replaces_the_old_one(old_folder):
    with atomic.replacing_folder(old_folder) as folder:
        assert folder.parent == old_folder.parent
        (folder / "new").write_text("new")
    assert contents(old_folder) == {"out/new": "new"}


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(old_folder, monkeypatch):
    rename = Path.rename

    def refusing(self, target):
        if (self / "new").exists():
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(ArtifactError, match=r"out: cannot be written \(broken\); nothing was changed"):  # noqa: SIM117
        with atomic.replacing_folder(old_folder) as folder:
            (folder / "new").write_text("new")
    assert contents(old_folder) == {"out/old": "old"}


def test_a_folder_whose_replacing_was_killed_midway_comes_back(old_folder):
    done = in_another_process(
        f"""
        rename = Path.rename
        Path.rename = lambda old, new: os.kill(os.getpid(), 9) if (old / "new").exists() else rename(old, new)
        with atomic.replacing_folder(Path({str(old_folder)!r})) as folder:
            (folder / "new").write_text("new")
        """
    )
    assert done.returncode == -9
    assert not old_folder.exists()
    with pytest.raises(KeyboardInterrupt), atomic.replacing_folder(old_folder):
        raise KeyboardInterrupt
    assert contents(old_folder) == {"out/old": "old"}


def test_leftovers_of_killed_writers_go_and_those_of_live_ones_and_of_other_files_stay(tmp_path):
    dead, live = in_another_process("print(os.getpid())").stdout.strip(), os.getppid()
    gone = [f".out.{dead}.partial", f".out.{os.getpid()}.partial"]
    kept = [f".out.{live}.partial", f".out.1{dead}.partial.txt", f".output.{dead}.partial", f".o.out.{dead}.partial"]
    for name in gone + kept:
        (tmp_path / name).mkdir()
    store.write_text(tmp_path / "out", "file")
    assert {path.name for path in tmp_path.iterdir()} == {"out", *kept}
    for name in gone:
        (tmp_path / name).write_text("half")
    with atomic.replacing_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"out", *kept}


def test_a_writer_that_is_killed_but_still_listed_is_no_live_one(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as writer:
        (tmp_path / f".out.{writer.pid}.partial").touch()
        store.write_text(tmp_path / "out", "file")
        assert len(list(tmp_path.iterdir())) == 2
        writer.kill()
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
        store.write_text(tmp_path / "out", "file")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_json_refuses_nan_and_damage(tmp_path):
    path = tmp_path / "a.json"
    store.write_json(path, {"b": 1, "a": [1.5]})
    assert path.read_text() == '{\n  "a": [\n    1.5\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write_json(path, {"a": float("nan")})
    assert store.read_json(path)["b"] == 1
    for damaged in ("{", "[" * 100_000):
        path.write_text(damaged)
        with pytest.raises(ArtifactError, match="damaged or not JSON"):
            store.read_json(path)


def test_tensors_that_share_memory_are_written_each_for_itself(tmp_path):
    whole = torch.arange(6.0)
    shared = {"whole": whole, "same": whole, "part": whole[2:4], "turned": whole.reshape(2, 3).T}
    store.write_tensors(tmp_path / "a", shared, "gram", {})
    found = store.read_tensors(tmp_path / "a", "gram")
    assert found.keys() == shared.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in shared.items())


def test_tensors_are_read_by_name_and_the_others_left_alone(written):
    assert list(store.read_tensors(written, "gram", ["x"])) == ["x"]
    with pytest.raises(ArtifactError, match="no tensor 'y'"):
        store.read_tensors(written, "gram", ["y"])


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_mode_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        store.write_tensors(tmp_path / "file", {"x": torch.zeros(2)}, "gram", {})
        with atomic.replacing_folder(tmp_path / "folder") as target:
            save_file({"x": torch.zeros(2)}, target / "in_it")
    finally:
        os.umask(before)
    for path in (tmp_path / "file", tmp_path / "folder" / "in_it"):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "out", tmp_path / ("a" * 245)):
        with pytest.raises(ArtifactError, match="cannot be written"):
            atomic.require_new(folder)
    assert atomic.require_new(tmp_path / "new" / "folder" / "out") == (tmp_path / "new" / "folder" / "out").resolve()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ArtifactError, match="working directory, expected a new folder, such as pruned"):
        atomic.require_new(Path())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    with pytest.raises(ArtifactError, match="empty: a mount point"):
        atomic.require_new(tmp_path / "empty")
