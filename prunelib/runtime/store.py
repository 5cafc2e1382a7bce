"""The formats of artifacts: safetensors and JSON with provenance and checksums, written atomically.

A safetensors artifact has one header entry, ``prunelib``: sorted JSON with the artifact's ``kind``, its provenance (the
settings and inputs that made it), a checksum of every tensor, and one of the entry itself. A JSON artifact has its kind
and its checksum under the same name. All checksums are verified when the file is read. Files are deterministic: the
same contents give the same bytes.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelib.errors import ArtifactError
from prunelib.runtime import hashing
from prunelib.runtime.atomic import replacing

if TYPE_CHECKING:
    import torch

_HEADER, _CHECKSUM, _CHECKSUMS = "prunelib", "checksum", "checksums"
FORMAT_VERSION = 2


def write_tensors(path: Path, tensors: Mapping[str, "torch.Tensor"], kind: str, provenance: Mapping[str, Any]) -> None:
    """Write tensors with their kind and provenance as one safetensors file.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    from safetensors.torch import save_file  # noqa: PLC0415 - import torch only for tensors

    contiguous = dict(_apart(tensors))
    checksums = {name: hashing.checksum(tensor) for name, tensor in contiguous.items()}
    header = {"kind": kind, "format": FORMAT_VERSION, **provenance, _CHECKSUMS: checksums}
    header[_CHECKSUM] = hashing.sha256_json(header)
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
    return hashing.sha256_json(read_provenance(path, kind))


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
    if hashing.checksum(tensor) != header[_CHECKSUMS][name]:
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
    if known.pop(_CHECKSUM, None) != hashing.sha256_json(known):
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
    return {_HEADER: [kind, FORMAT_VERSION, hashing.sha256_json(plain)], **plain}


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
    if header["checksum"] != hashing.sha256_json(value):
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
