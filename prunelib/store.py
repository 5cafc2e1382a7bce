"""Files that are whole or absent: safetensors and JSON, written to a temporary name and renamed, with provenance.

A safetensors artifact carries one header entry, ``prunelib``: sorted JSON with the artifact's ``kind`` and its
provenance (what made it, from what). Bytes are deterministic: the same contents give the same file.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelib.errors import ArtifactError

if TYPE_CHECKING:
    import torch

_HEADER = "prunelib"
FORMAT_VERSION = 1


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a JSON value in its canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file name beside ``path``; on success it becomes ``path``, on failure nothing is left.

    Raises
    ------
    ArtifactError
        If the file could not be written (disk full, no permission). What was at ``path`` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _writing(path):
            yield temporary
            temporary.chmod(0o644)  # safetensors writes files that only their owner may read
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path, scratch: Path = Path("scratch")) -> Iterator[Path]:
    """Yield an empty folder under ``scratch``; on success it becomes ``path``, on failure it is removed.

    Raises
    ------
    ArtifactError
        As :func:`replacing`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=scratch))
    try:
        with _writing(path):
            yield temporary
            temporary.chmod(0o755)
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, "torch.Tensor"], kind: str, provenance: Mapping[str, Any]) -> None:
    """Write tensors with their kind and provenance as one safetensors file.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    from safetensors.torch import save_file  # noqa: PLC0415 - torch only where tensors are

    header = {"kind": kind, "format": FORMAT_VERSION, **provenance}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={_HEADER: json.dumps(header, sort_keys=True)})


def read_provenance(path: Path, kind: str) -> dict[str, Any]:
    """The header of an artifact of the given kind.

    Raises
    ------
    ArtifactError
        If the file is missing, truncated, or not an artifact of this kind and format.
    """
    with _opened(path) as stream:
        header: dict[str, Any] = json.loads((stream.metadata() or {}).get(_HEADER, "{}"))
    if header.get("kind") != kind:
        raise ArtifactError(
            f"{path}: expected a {kind} artifact of prunelib, found {header.get('kind') or 'another file'}"
        )
    if header.get("format") != FORMAT_VERSION:
        raise ArtifactError(f"{path}: format {header.get('format')}, this version of prunelib reads {FORMAT_VERSION}")
    return header


def read_tensors(path: Path, kind: str) -> dict[str, "torch.Tensor"]:
    """All tensors of an artifact of the given kind.

    Raises
    ------
    ArtifactError
        As :func:`read_provenance`.
    """
    read_provenance(path, kind)
    with _opened(path) as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping, only keys()


def expect_provenance(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse an artifact whose header differs from what it is used with.

    Raises
    ------
    ArtifactError
        Naming the file, the first key that differs, and both values.
    """
    for key, value in expected.items():
        if found.get(key) != value:
            raise ArtifactError(
                f"{path}: its {key} is {found.get(key)!r}, but {value!r} was expected; rerun the stage that made it"
            )


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value with sorted keys.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a text file.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ArtifactError
        If it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; run the stage that makes it (dvc repro)") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: damaged or not JSON ({error})") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - as in write_tensors

    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; run the stage that makes it (dvc repro)")
    try:
        with safe_open(path, framework="pt") as stream:
            yield stream
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: truncated, damaged or not a safetensors file ({error})") from None


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write into one line that names the file."""
    from safetensors import SafetensorError  # noqa: PLC0415 - as in write_tensors

    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG}:
            raise
        raise ArtifactError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from None
    except SafetensorError as error:
        raise ArtifactError(f"{path}: cannot be written ({error}); nothing was changed") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
