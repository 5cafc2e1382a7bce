"""Hashes of files, JSON values and tensors."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import xxhash

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached(read: Callable[[Path], T], path: Path) -> T:
    """Return ``read(path)``, called again only if the file has another size or time of change than before."""
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
    import torch  # noqa: PLC0415 - import torch only for tensors

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
