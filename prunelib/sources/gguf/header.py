"""The header of a GGUF file: its metadata, and the bytes of every tensor.

Every length and count is checked against the size of the file before it is used, so that reading a damaged file ends.
"""

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_ALIGNMENT, _MOST_AXES = 32, 4


class GGUFTensor(NamedTuple):
    """A tensor as the file has it.

    Attributes
    ----------
    shape
        Of its values, rows first.
    kind
        How they are stored.
    data
        Their bytes, uint8, (..., bytes of a row), not copied from the file.
    """

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    data: np.ndarray


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    """Return the metadata and the tensors of a file by name.

    Raises
    ------
    ValueError
        If the file is truncated, damaged, big-endian or not GGUF.
    OSError
        If it cannot be read.
    """
    cursor = _Cursor(np.memmap(path, mode="r"))
    if bytes(cursor.take(4)) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    _check_version(cursor.scalar("I"))
    tensor_count, key_count = cursor.scalar("Q"), cursor.scalar("Q")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        _add(metadata, cursor.text(), cursor.value())
    places: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(tensor_count):
        _add(places, cursor.text(), cursor.place())
    cursor.skip_to_multiple(metadata.get("general.alignment", _ALIGNMENT))
    content = cursor.rest()
    return metadata, {name: _tensor(name, content, *place) for name, place in places.items()}


def _check_version(version: int) -> None:
    if version & 0xFFFF == 0:
        raise ValueError("its byte order is big-endian, expected little-endian; gguf-convert-endian converts it")
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version}, expected {' or '.join(map(str, _VERSIONS))}")


def _add(entries: dict[str, Any], name: str, value: Any) -> None:
    if name in entries:
        raise ValueError(f"{name!r} is in it twice")
    entries[name] = value


def _tensor(name: str, content: np.ndarray, shape: tuple[int, ...], number: int, start: int) -> GGUFTensor:
    """Cut a tensor of ``shape`` and type ``number`` out of the data section, ``content``: (bytes,), uint8."""
    kind = GGMLQuantizationType(number)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    *rows, columns = shape or (1,)
    if columns % block:
        raise ValueError(f"{name!r} has rows of {columns} values, expected a multiple of {block} for {kind.name}")
    stored = (*rows, columns // block * block_bytes)
    end = start + math.prod(stored)
    if end > len(content):
        raise ValueError(f"{name!r} ends at byte {end} of the tensors, there are {len(content)}")
    return GGUFTensor(shape, kind, content[start:end].reshape(stored))


class _Cursor:
    """A position in the bytes of a file, moved by reading; reading beyond their end raises ValueError."""

    def __init__(self, content: np.ndarray) -> None:
        self._content = content
        self._bytes = memoryview(content.data)
        self._at = 0

    def take(self, size: int) -> memoryview:
        """Return the next ``size`` bytes."""
        if size > len(self._bytes) - self._at:
            raise ValueError(f"{size} bytes expected at byte {self._at}, there are {len(self._bytes) - self._at}")
        self._at += size
        return self._bytes[self._at - size : self._at]

    def scalar(self, form: str) -> Any:
        """Return one number of the given form of ``struct``."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self) -> str:
        """Return one string, after its length."""
        return str(self.take(self.scalar("Q")), "utf-8")

    def value(self) -> Any:
        """Return one value, after its type; an array as a list."""
        kind = self.scalar("I")
        if kind == _ARRAY:
            return self._array(self.scalar("I"), self.scalar("Q"))
        return self.text() if kind == _TEXT else self.scalar(_form(kind))

    def place(self) -> tuple[tuple[int, ...], int, int]:
        """Return shape, type and offset of one tensor."""
        axes = self.scalar("I")
        if axes > _MOST_AXES:
            raise ValueError(f"a tensor of {axes} axes at byte {self._at}, expected at most {_MOST_AXES}")
        shape = struct.unpack(f"<{axes}Q", self.take(8 * axes))[::-1]
        return shape, self.scalar("I"), self.scalar("Q")

    def skip_to_multiple(self, alignment: Any) -> None:
        """Go on to the next multiple of ``alignment``."""
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment = {alignment!r}, expected a power of 2")
        self.take(-self._at % alignment)

    def rest(self) -> np.ndarray:
        """Return the bytes from here to the end, uint8, not copied."""
        return self._content[self._at :]

    def _array(self, kind: int, count: int) -> list[Any]:
        if kind == _TEXT:
            if 8 * count > len(self._bytes) - self._at:
                raise ValueError(f"an array of {count} strings at byte {self._at}, more than the file has")
            return [self.text() for _ in range(count)]
        form = _form(kind)
        data = self.take(count * struct.calcsize(f"<{form}"))
        return list(struct.unpack(f"<{count}{form}", data))


def _form(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"unknown type of metadata: {kind}")
    return _SCALARS[kind]
