"""What waits in scratch/ for the next run, and for how long."""

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from prunelib.errors import StageError
from prunelib.runtime.resume import FinishedValues, resumable

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fail(name, decides):
    """Work that leaves a part and fails; its folder."""
    with contextlib.suppress(ZeroDivisionError), resumable(name, decides) as folder:
        (folder / "part").write_text("done")
        raise ZeroDivisionError
    return folder


def test_the_same_work_finds_its_parts_again_and_takes_them_with_it():
    fail("refine-a", {"settings": 1})
    with resumable("refine-a", {"settings": 1}) as folder:
        assert (folder / "part").read_text() == "done"
    assert not folder.exists()


def test_other_work_finds_none_and_removes_what_is_out_of_date():
    before = fail("refine-a", {"settings": 1})
    with resumable("refine-a", {"settings": 2}) as folder:
        assert folder != before
        assert not list(folder.iterdir())
        assert not before.exists()


def test_parts_made_with_another_version_of_torch_are_out_of_date(tmp_path, monkeypatch):
    before = fail("refine-a", {})
    installed = tmp_path / "packages" / "torch-0.1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(installed.parent)
    with resumable("refine-a", {}) as folder:
        assert folder != before
        assert not before.exists()


def test_work_of_another_name_is_left_alone():
    before = fail("refine-a", {})
    with resumable("refine", {}), resumable("refine-a-b", {}):
        assert (before / "part").exists()


def test_the_second_process_says_who_works_on_it():
    script = """
        import sys
        from prunelib.runtime.resume import resumable
        with resumable("refine-a", {}):
            print("at work", flush=True)
            sys.stdin.read()
    """
    words = [sys.executable, "-c", textwrap.dedent(script)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "at work\n"
        with pytest.raises(StageError, match=f"^refine-a: process {other.pid} runs it"), resumable("refine-a", {}):
            pass
        other.kill()
    with resumable("refine-a", {}):
        pass


def test_a_value_is_found_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return [0.1, 1e-300, 3]

    for _ in range(2):
        assert FinishedValues(tmp_path / "values").once("a", compute) == [0.1, 1e-300, 3]
    assert len(calls) == 1


@pytest.mark.parametrize("damage", [lambda path: path.write_text("{"), lambda path: (path.unlink(), path.mkdir())])
def test_a_part_that_cannot_be_read_is_not_finished(tmp_path, damage):
    values = FinishedValues(tmp_path)
    values.write("a", 1)
    damage(values.path("a"))
    assert "a" not in values
    assert values.once("a", lambda: 2) == 2


def test_a_folder_that_cannot_be_removed_whole_does_not_come_back(monkeypatch):
    """As on NFS, where a file that a process has open leaves another in its place."""
    unlink = os.unlink

    def refuse(path, *arguments, **options):
        if str(path).endswith("part"):
            raise OSError(39, "Directory not empty")
        unlink(path, *arguments, **options)

    with resumable("refine-a", {}) as folder:
        (folder / "part").write_text("done")
        monkeypatch.setattr(os, "unlink", refuse)
    assert not folder.exists()
    with resumable("refine-a", {}) as again:
        assert again == folder
        assert not list(again.iterdir())


def test_what_a_killed_removal_left_goes_even_if_the_settings_have_changed(monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), resumable("refine-a", {"settings": 1}):
        patch.setattr(shutil, "rmtree", interrupted)
    (left,) = Path("scratch").glob(".*")
    with resumable("refine", {}), resumable("refine-a-b", {}):
        assert left.exists()
    with resumable("refine-a", {"settings": 2}):
        assert not left.exists()


def test_a_removal_that_is_killed_midway_leaves_no_part_to_go_on_from(monkeypatch):
    unlink, removed = os.unlink, []

    def kill_after_the_first(path, *arguments, **options):
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path, *arguments, **options)

    folder = fail("refine-a", {})
    (folder / "another part").write_text("done")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), resumable("refine-a", {}):
        patch.setattr(os, "unlink", kill_after_the_first)
    assert len(removed) == 1
    with resumable("refine-a", {}) as again:
        assert again == folder
        assert not list(again.iterdir())


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_a_scratch_that_cannot_be_used_is_one_line():
    Path("scratch").write_text("a file")
    with pytest.raises(StageError, match=r"^scratch: .*; remove it"), resumable("refine-a", {}):
        pass
