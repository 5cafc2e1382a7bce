"""Damage to files, generated: what a disk, a transfer, an editor or another program may leave of them.

``damages`` gives the damages of a file one after another, each with its name: of its bytes, and of every field where
the file is JSON, JSON lines, YAML, or has a JSON header (safetensors). The same seed gives the same damages.
"""

import json
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

VALUES = {  # what stands in the place of a field's value
    "null": None,
    "true": True,
    "text": "NaN",
    "empty text": "",
    "long text": "x" * 5000,
    "minus one": -1,
    "zero": 0,
    "fraction": 0.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "huge": 10**30,
    "huge fraction": 1e308,
    "empty list": [],
    "empty object": {},
    "list of lists": [[]],
    "object of null": {"": None},
}
DEEP = 100_000


class Damage(NamedTuple):
    """What was done to a file, its bytes then, and the key that a message about it may name instead of the file."""

    name: str
    content: bytes
    key: str | None = None


def damages(content: bytes, form: str, seed: int, number: int) -> list[Damage]:
    """Return ``number`` damages, of bytes and of fields in turn, drawn at random.

    Parameters
    ----------
    form
        ``json``, ``lines`` (JSON lines), ``safetensors``, ``yaml`` (all with fields), or ``bytes``.
    """
    draw = random.Random(seed)  # noqa: S311 - the same each time
    fields = _FIELDS.get(form)
    return [of_field(content, form, draw) if fields and turn % 2 else of_bytes(content, draw) for turn in range(number)]


def of_bytes(content: bytes, draw: random.Random) -> Damage:
    """Flip a bit, cut, add, remove, zero or swap bytes, mostly near the beginning, where headers are."""
    place = draw.randrange(min(len(content), draw.choice([40, 600, len(content)])) or 1)
    before, after = content[:place], content[place:]
    bit = draw.randrange(8)
    ways = {
        f"bit {bit} of byte {place} flipped": before + bytes(byte ^ 1 << bit for byte in after[:1]) + after[1:],
        f"cut at byte {place}": before,
        f"bytes added at {place}": before + draw.randbytes(9) + after,
        f"9 bytes removed at {place}": before + after[9:],
        f"64 bytes zeroed at {place}": before + bytes(len(after[:64])) + after[64:],
        f"parts swapped at {place}": after + before,
        "written twice": content * 2,
    }
    name = draw.choice(list(ways))
    return Damage(name, ways[name])


def of_field(content: bytes, form: str, draw: random.Random) -> Damage:
    """Remove a field or an item, or put another value in its place."""
    value, write = _FIELDS[form](content, draw)
    places = list(places_of(value))
    if not places:
        return of_bytes(content, draw)
    *way, last = draw.choice(places)
    holder = value
    for key in way:
        holder = holder[key]
    where = ".".join(map(str, (*way, last)))
    if draw.random() < 0.25:
        del holder[last]
        return Damage(f"{where} removed", write(value), where)
    what = draw.choice([*VALUES, "negated", "as text"])
    old = holder[last]
    match what:
        case "negated":
            holder[last] = -old if isinstance(old, int | float) else [old]
        case "as text":
            holder[last] = str(old)
        case _:
            holder[last] = VALUES[what]
    return Damage(f"{where}: {what}", write(value), where)


def places_of(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every key and item of a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield (*way, key)
        yield from places_of(part, (*way, key))


def _of_json(content: bytes, _draw: random.Random) -> tuple[Any, Any]:
    return json.loads(content), lambda value: json.dumps(value).encode()


def _of_lines(content: bytes, draw: random.Random) -> tuple[Any, Any]:
    """One of the lines."""
    lines = content.splitlines()
    number = draw.randrange(len(lines))

    def write(value: Any) -> bytes:
        return b"\n".join([*lines[:number], json.dumps(value).encode(), *lines[number + 1 :], b""])

    return json.loads(lines[number]), write


def _of_safetensors(content: bytes, _draw: random.Random) -> tuple[Any, Any]:
    """The header, and the JSON in its metadata."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    ours = "prunelib" in header.get("__metadata__", {})
    if ours:
        header["__metadata__"]["prunelib"] = json.loads(header["__metadata__"]["prunelib"])

    def write(value: Any) -> bytes:
        metadata = value.get("__metadata__")
        if ours and isinstance(metadata, dict) and "prunelib" in metadata:
            metadata["prunelib"] = json.dumps(metadata["prunelib"])
        text = json.dumps(value).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + size :]

    return header, write


def _of_yaml(content: bytes, _draw: random.Random) -> tuple[Any, Any]:
    from io import BytesIO

    from ruamel.yaml import YAML

    def write(value: Any) -> bytes:
        sink = BytesIO()
        YAML(typ="safe").dump(value, sink)
        return sink.getvalue()

    return YAML(typ="safe").load(content), write


_FIELDS = {"json": _of_json, "lines": _of_lines, "safetensors": _of_safetensors, "yaml": _of_yaml}
