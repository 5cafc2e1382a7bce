"""Origin and identity of a fetched folder: ``provenance.json``, written last.

``{"source", "files": {name: sha256}, "checksums": {name: XXH3-128}, "sha256"}``. The identity ``sha256`` covers the
contents that affect results (weights and configuration, documents, items of tasks), not their origin. When a folder's
identity is asked for, these files are read once in each process and compared with their checksums.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from prunelib.errors import ArtifactError
from prunelib.runtime import hashing, store
from prunelib.settings import Settings
from prunelib.sources.model_files import CONFIGURATION, weight_files

Kind = Literal["model", "text", "tasks"]

_FILE = "provenance.json"


class Source(Settings):
    """Settings of a source."""

    def origin(self) -> dict[str, Any]:
        """Return the settings to record in provenance, without local paths and unset values."""
        return self.model_dump(mode="json", exclude_none=True)

    def local_paths(self) -> list[Path]:
        """Return the files and folders of this machine that are read; a glob up to its first wildcard."""
        return []


def seal(folder: Path, kind: Kind, origin: Mapping[str, Any]) -> None:
    """Write the provenance of a folder that is otherwise complete.

    Raises
    ------
    ArtifactError
        If it could not be written.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _FILE)
    files = {path.relative_to(folder).as_posix(): hashing.sha256_file(path) for path in paths}
    decisive = _decisive(folder, kind)
    value = {
        "source": dict(origin),
        "files": files,
        "checksums": {name: hashing.checksum_file(folder / name) for name in decisive},
        "sha256": hashing.sha256_json({name: files[name] for name in decisive}),
    }
    store.write_record(folder / _FILE, kind, value)


def model_identity(folder: Path) -> str:
    """Return the SHA-256 over a model folder's weights and configuration.

    Raises
    ------
    ArtifactError
        If the folder has no provenance of a model.
    """
    return _identity(folder, "model")


def computed_identity(folder: Path) -> str:
    """Compute :func:`model_identity` from the weights and configuration of any model folder.

    Raises
    ------
    ArtifactError
        If a file of them is missing or cannot be read.
    """
    return hashing.sha256_json({name: _sha256(folder / name) for name in _decisive(folder, "model")})


def text_identity(folder: Path) -> str:
    """Return the SHA-256 over both splits of a text folder.

    Raises
    ------
    ArtifactError
        If the folder has no provenance of a text.
    """
    return _identity(folder, "text")


def tasks_identity(folder: Path) -> str:
    """Return the SHA-256 over the items of all tasks in a folder.

    Raises
    ------
    ArtifactError
        If the folder has no provenance of tasks.
    """
    return _identity(folder, "tasks")


def _decisive(folder: Path, kind: Kind) -> list[str]:
    """Return the names of the files that affect results."""
    if kind == "model":
        return [CONFIGURATION, *weight_files(folder)]
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.jsonl"))]


def _sha256(path: Path) -> str:
    try:
        return hashing.sha256_file(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}), though it is a part of the model") from None


def _identity(folder: Path, kind: Kind) -> str:
    value = store.read_record(folder / _FILE, kind)
    for name, checksum in value["checksums"].items():
        _verify(folder / name, checksum)
    return str(value["sha256"])


def _verify(path: Path, checksum: str) -> None:
    try:
        found = hashing.cached(hashing.checksum_file, path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); run the download stage again") from None
    if found != checksum:
        raise ArtifactError(f"{path}: not the file that {_FILE} names; remove its folder and run the download stage")
