"""Origin and identity of a fetched folder: ``provenance.json``, written last.

``{"kind", "source", "files": {name: sha256}, "sha256"}``. The identity ``sha256`` covers the contents that affect
results (weights and configuration, documents, items of tasks), not their origin.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from prunelib.errors import ArtifactError
from prunelib.runtime import store
from prunelib.settings import Settings

Kind = Literal["model", "text", "tasks"]

_FILE = "provenance.json"
_DECISIVE: Mapping[Kind, tuple[str, ...]] = {
    "model": ("*.safetensors", "config.json"),
    "text": ("*.jsonl",),
    "tasks": ("*.jsonl",),
}


class Source(Settings):
    """Settings of a source."""

    def origin(self) -> dict[str, Any]:
        """Return the settings to record in provenance, without local paths and unset values."""
        return self.model_dump(mode="json", exclude_none=True)


def seal(folder: Path, kind: Kind, origin: Mapping[str, Any]) -> None:
    """Write the provenance of a folder that is otherwise complete.

    Raises
    ------
    ArtifactError
        If it could not be written.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _FILE)
    files = {path.relative_to(folder).as_posix(): store.sha256_file(path) for path in paths}
    value = {"kind": kind, "source": dict(origin), "files": files, "sha256": _over_decisive(files, kind)}
    store.write_json(folder / _FILE, value)


def model_identity(folder: Path) -> str:
    """Return the SHA-256 over a model folder's weights and configuration.

    Raises
    ------
    ArtifactError
        If the folder has no provenance of a model.
    """
    return _identity(folder, "model")


def computed_identity(folder: Path) -> str:
    """Compute :func:`model_identity` from the weights and configuration of any model folder."""
    paths = [path for glob in _DECISIVE["model"] for path in folder.glob(glob)]
    return _over_decisive({path.name: store.sha256_file(path) for path in paths}, "model")


def text_identity(folder: Path) -> str:
    """Return the SHA-256 over both splits of a text folder.

    Raises
    ------
    ArtifactError
        If the folder has no provenance of a text.
    """
    return _identity(folder, "text")


def _over_decisive(files: Mapping[str, str], kind: Kind) -> str:
    """Compute the identity of a folder from the hashes of its files."""
    decisive = {name: sha for name, sha in files.items() if any(fnmatchcase(name, glob) for glob in _DECISIVE[kind])}
    return store.sha256_json(decisive)


def _identity(folder: Path, kind: Kind) -> str:
    value = store.read_json(folder / _FILE)
    if not isinstance(value, dict) or value.get("kind") != kind or not isinstance(value.get("sha256"), str):
        raise ArtifactError(f"{folder / _FILE}: expected the provenance of a {kind} folder; rerun the download stage")
    identity: str = value["sha256"]
    return identity
