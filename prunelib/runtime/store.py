"""Atomic files: safetensors and JSON, written under a temporary name and renamed, with provenance and checksums.

A safetensors artifact has one header entry, ``prunelib``: sorted JSON with the artifact's ``kind``, its provenance (the
settings and inputs that made it), a checksum of every tensor, and one of the entry itself. A JSON artifact has its kind
and its checksum under the same name. All checksums are verified when the file is read. Files are deterministic: the
same contents give the same bytes.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psutil
import xxhash

from prunelib.errors import ArtifactError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_HEADER, _CHECKSUM, _CHECKSUMS = "prunelib", "checksum", "checksums"
FORMAT_VERSION = 2
_NO_GAP = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def once_unchanged(read: Callable[[Path], T], path: Path) -> T:
    """Return what is read of a file, once for the time of its last change and its size in each process."""
    stat = path.stat()
    return cast("T", _read(read, path.resolve(), stat.st_mtime_ns, stat.st_size))


@cache
def _read(read: Callable[[Path], Any], path: Path, _changed: int, _size: int) -> Any:
    return read(path)


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys, no spaces), in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def checksum(tensor: "torch.Tensor") -> str:
    """Return the XXH3-128 of a tensor's dtype, shape and bytes, in hexadecimal.

    It finds damage and mistaken files at the speed of memory; it does not withstand forgery, as SHA-256 does.
    """
    import torch  # noqa: PLC0415 - as in write_tensors

    content = tensor.detach().cpu().contiguous()
    found = xxhash.xxh3_128(f"{content.dtype} {tuple(content.shape)} ".encode())
    found.update(content.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def checksum_file(path: Path) -> str:
    """Return the XXH3-128 of a file's bytes, in hexadecimal."""
    found = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            found.update(chunk)
    return found.hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the folder of ``path``; on success it becomes ``path``, on failure it is removed.

    Raises
    ------
    ArtifactError
        If the file could not be written (disk full, no permission). The previous ``path`` is kept.
    """
    temporary = _partial(path)
    with _writing(path):
        _make_way(path)
        temporary.touch()
        mode = _new_file_mode(temporary)
    try:
        with _filling(path):
            yield temporary
        with _writing(path):
            temporary.chmod(mode)
            _sync(temporary)
            temporary.replace(path)
        _sync_names(path.parent)
    finally:
        discard(temporary)


def require_new(folder: Path) -> Path:
    """Return a folder of the user's that :func:`replacing_folder` can write, with links followed: new or empty.

    Raises
    ------
    ArtifactError
        If it is anything else, or cannot be written.
    """
    with _writing(folder):
        target = Path(os.path.realpath(folder))
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ArtifactError(f"{folder}: exists already, expected a new or empty folder")
        if target.is_mount() or Path.cwd().is_relative_to(target):  # they cannot be replaced
            what = "a mount point" if target.is_mount() else "the working directory"
            raise ArtifactError(f"{folder}: {what}, expected a new folder, such as {folder / 'pruned'}")
        probe = next(parent for parent in target.parents if parent.exists()) / _partial(target).name
        probe.mkdir()
        probe.rmdir()
    return target


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to ``path``; on success it becomes ``path``, on failure it is removed.

    Raises
    ------
    ArtifactError
        As :func:`replacing`.
    """
    temporary = _partial(path)
    with _writing(path):
        _make_way(path)
        temporary.mkdir()
        mode = _new_file_mode(temporary)
    try:
        with _filling(path):
            yield temporary
        with _writing(path):
            for made in (*temporary.rglob("*"), temporary):
                if made.is_dir():
                    _sync_names(made)
                else:
                    made.chmod(mode)
                    _sync(made)
            _exchange(temporary, path)
        _sync_names(path.parent)
    finally:
        discard(temporary)


def remove(path: Path) -> None:
    """Remove a file or folder: no longer there under its name at once, whatever happens during the removal.

    It is renamed first, so that a kill never leaves a part of it under its name. What cannot be removed, such as a file
    of NFS that a process still has open, stays under the new name until the next write or removal of ``path``.

    Raises
    ------
    ArtifactError
        If it could not be renamed.
    """
    if not os.path.lexists(path):
        return
    with _writing(path):
        _make_way(path)
        asides = (path.with_name(f".{path.name}.{os.getpid()}.{number}.partial") for number in itertools.count())
        aside = next(name for name in asides if not os.path.lexists(name))
        path.rename(aside)
    discard(aside)


def discard(path: Path) -> None:
    """Remove a file or folder that nothing reads under its name; if that fails, the next write tries again."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def publish(folder: Path, path: Path) -> None:
    """Replace ``path`` atomically by a copy of a finished folder; files are hard-linked if possible.

    Raises
    ------
    ArtifactError
        As :func:`replacing`.
    """
    with replacing_folder(path) as target:
        shutil.copytree(folder, target, copy_function=_link, dirs_exist_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, "torch.Tensor"], kind: str, provenance: Mapping[str, Any]) -> None:
    """Write tensors with their kind and provenance as one safetensors file.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    from safetensors.torch import save_file  # noqa: PLC0415 - import torch only for tensors

    contiguous = dict(_apart(tensors))
    checksums = {name: checksum(tensor) for name, tensor in contiguous.items()}
    header = {"kind": kind, "format": FORMAT_VERSION, **provenance, _CHECKSUMS: checksums}
    header[_CHECKSUM] = sha256_json(header)
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={_HEADER: json.dumps(header, sort_keys=True)})


def _apart(tensors: Mapping[str, "torch.Tensor"]) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Yield contiguous tensors on the CPU by name, none of which share memory, which safetensors refuses."""
    seen: set[int] = set()
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        address = plain.untyped_storage().data_ptr()
        yield name, plain.clone() if address in seen else plain
        seen.add(address)


def read_provenance(path: Path, kind: str) -> dict[str, Any]:
    """Read the header of an artifact of the given kind.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged, or not an artifact of this kind and format.
    """
    with _opened(path) as stream:
        return _verified(path, json.loads((stream.metadata() or {}).get(_HEADER, "{}")), kind)


def tensors_identity(path: Path, kind: str) -> str:
    """Return the SHA-256 of the header of an artifact: of its provenance and of the checksums of all its tensors.

    Raises
    ------
    ArtifactError
        As :func:`read_provenance`.
    """
    return sha256_json(read_provenance(path, kind))


def read_tensors(path: Path, kind: str, names: Iterable[str] | None = None) -> dict[str, "torch.Tensor"]:
    """Read tensors of an artifact of the given kind, those of these names or all, and verify their checksums.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged, or not an artifact of this kind and format.
    """
    header = read_provenance(path, kind)
    with _opened(path) as stream:
        if off := set(stream.keys()) ^ header[_CHECKSUMS].keys():
            raise _damaged(path, f"{min(off)} is missing or surplus")
        return {name: _tensor(path, stream, header, name) for name in (header[_CHECKSUMS] if names is None else names)}


def read_tensor(path: Path, header: Mapping[str, Any], name: str) -> "torch.Tensor":
    """Read one tensor of an artifact whose header is :func:`read_provenance`'s, and verify its checksum.

    Raises
    ------
    ArtifactError
        If there is no tensor of this name, or it is damaged.
    """
    with _opened(path) as stream:
        return _tensor(path, stream, header, name)


def _tensor(path: Path, stream: Any, header: Mapping[str, Any], name: str) -> "torch.Tensor":
    if name not in header[_CHECKSUMS]:
        raise ArtifactError(f"{path}: no tensor {name!r}, expected one of {', '.join(header[_CHECKSUMS])}")
    tensor: torch.Tensor = stream.get_tensor(name)
    if checksum(tensor) != header[_CHECKSUMS][name]:
        raise _damaged(path, f"the checksum of {name} differs")
    return tensor


def _verified(path: Path, header: Any, kind: str) -> dict[str, Any]:
    """Return a header without its checksum if it is of this kind and format and undamaged."""
    known = header if isinstance(header, dict) else {}
    if known.get("kind") != kind:
        found = known.get("kind") or "another file"
        raise ArtifactError(f"{path}: expected a {kind} artifact of prunelib, found {found}")
    if known.get("format") != FORMAT_VERSION:
        raise ArtifactError(f"{path}: format {known.get('format')}, this version of prunelib reads {FORMAT_VERSION}")
    if known.pop(_CHECKSUM, None) != sha256_json(known):
        raise _damaged(path, "the checksum of its header differs")
    return known


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path}: damaged or changed ({what}); remove it and run the stage that makes it")


def expect_provenance(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Check that the header of an artifact has the expected values.

    Raises
    ------
    ArtifactError
        If it has not; the message gives the file, the first key that differs, and both values.
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


def write_record(path: Path, kind: str, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its kind and checksum.

    They are in a list, which ``dvc metrics`` does not show.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    write_json(path, _stamped(kind, value))


def write_compact_record(path: Path, kind: str, value: Mapping[str, Any]) -> None:
    """Write a record as :func:`write_record`, but with one line a key: a third of the bytes, where they are many.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    stamped = sorted(_stamped(kind, value).items())
    lines = (f"{json.dumps(key)}:{json.dumps(part, sort_keys=True, separators=(',', ':'))}" for key, part in stamped)
    write_text(path, "{" + ",\n".join(lines) + "}\n")


def _stamped(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its kind and checksum."""
    plain = json.loads(json.dumps(value, allow_nan=False))
    return {_HEADER: [kind, FORMAT_VERSION, sha256_json(plain)], **plain}


def read_record(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON object of the given kind, as :func:`write_record` was given it.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged, or not an artifact of this kind and format.
    """
    value = read_json(path)
    found = value.pop(_HEADER, None) if isinstance(value, dict) else None
    names = ("kind", "format", "checksum")
    header = dict(zip(names, found, strict=True)) if isinstance(found, list) and len(found) == len(names) else {}
    expected = {"kind": kind, "format": FORMAT_VERSION, "checksum": None}
    if {**header, "checksum": None} != expected:
        other = f"{header['kind']!r}, format {header['format']}" if header else "another file"
        raise ArtifactError(f"{path}: expected {kind!r} of prunelib, format {FORMAT_VERSION}, found {other}")
    if header["checksum"] != sha256_json(value):
        raise _damaged(path, "its checksum differs")
    return dict(value)


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
        If it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; run the stage that makes it (dvc repro)") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, an integer of 5,000 digits
        raise ArtifactError(f"{path}: damaged or not JSON ({error})") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - as in write_tensors

    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; run the stage that makes it (dvc repro)")
    try:
        with safe_open(path, framework="pt") as stream:
            yield stream
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: truncated, damaged or not a safetensors file ({error})") from None


def _partial(path: Path) -> Path:
    """Return the hidden temporary name, in the same folder, under which this process writes ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _make_way(path: Path) -> None:
    """Create the parent folder of ``path``, and remove the leftovers of killed writers of ``path``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, f"{path.parent} is not a folder") from error
    name = re.compile(rf"\.{re.escape(path.name)}\.([1-9]\d{{0,8}})(\.old|\.\d+)?\.partial")
    for found in list(path.parent.iterdir()):
        leftover = name.fullmatch(found.name)
        if leftover is None or _is_other_process(int(leftover[1])):
            continue
        if leftover[2] == ".old":
            _put_back(found, path)
        else:
            discard(found)


def _is_other_process(pid: int) -> bool:
    """Return whether ``pid`` is a running process other than this one; a killed one may still be listed as a zombie."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
    except (PermissionError, psutil.AccessDenied):
        return True  # it runs as another user


def _new_file_mode(made: Path) -> int:
    """Return the mode of new files, 0666 less the umask, from what was just made; safetensors makes its files 0600."""
    return made.stat().st_mode & 0o666


def _exchange(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``; the old ``path`` is set aside meanwhile, so a kill at any time loses neither."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old.partial")
    try:
        if os.path.lexists(path):
            path.rename(old)
        new.rename(path)
    finally:
        _put_back(old, path)


def _put_back(old: Path, path: Path) -> None:
    """Rename ``old`` back to ``path`` if nothing replaced it; otherwise discard it."""
    if os.path.lexists(old) and not os.path.lexists(path):
        old.rename(path)
    discard(old)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Convert an OSError in the library's own steps into one line that names the file."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error.strerror) from None


@contextlib.contextmanager
def _filling(path: Path) -> Iterator[None]:
    """Convert write errors in the caller's steps as :func:`_writing` does; other errors may concern files it reads."""
    from safetensors import SafetensorError  # noqa: PLC0415 - as in write_tensors

    try:
        yield
    except OSError as error:
        if error.errno not in _NO_GAP:
            raise
        raise _unwritable(path, error.strerror) from None
    except SafetensorError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, reason: object) -> ArtifactError:
    return ArtifactError(f"{path}: cannot be written ({reason}); nothing was changed")


def _link(source: str, target: str) -> None:
    """Hard-link a file, or copy it if the file system cannot link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_names(folder: Path) -> None:
    """Make a rename durable if the system supports it; the renamed file is complete either way."""
    with contextlib.suppress(OSError):
        _sync(folder)
