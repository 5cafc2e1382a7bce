"""Local files: copied or read one by one, selected by name."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import AfterValidator

from prunelib.errors import SourceError


def with_home(path: Path) -> Path:
    """Return a path with the user's folder in place of ``~``."""
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


UserPath = Annotated[Path, AfterValidator(with_home)]
"""A path in params.yaml, which may begin with ``~``."""


def copy_files(source: Path, globs: Iterable[str], folder: Path) -> None:
    """Copy the files directly in ``source`` whose name matches any of the globs.

    Raises
    ------
    SourceError
        If ``source`` is not a folder, or it or a file in it cannot be read.
    """
    for path in _chosen(source, tuple(globs)):
        with _opened(path) as stream, (folder / path.name).open("wb") as copy:
            shutil.copyfileobj(stream, copy)


def file_names(source: Path) -> list[str]:
    """Return the names of the files directly in ``source``, sorted.

    Raises
    ------
    SourceError
        If ``source`` is not a folder, or cannot be read.
    """
    return [path.name for path in _files(source)]


def read_files(globs: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of all files that match any of the globs, each once, by path, in the order of their paths.

    Raises
    ------
    SourceError
        If a glob matches no file, or a file cannot be read.
    """
    contents, found = {}, {in_full(path): path for glob in globs for path in _matching(glob)}
    for _, path in sorted(found.items()):
        with _reading(path):
            contents[path.as_posix()] = path.read_bytes()
    return contents


def read_file(glob: str) -> bytes:
    """Return the content of the single file that a path or a glob matches; raise as :func:`read_files`."""
    (content, *others) = read_files([glob]).values()
    if others:
        raise SourceError(f"{glob}: {1 + len(others)} files match, expected one")
    return content


def in_full(path: Path | str) -> Path:
    """Return the absolute path of a file, without ``..``; links keep their names."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links


def _chosen(source: Path, globs: tuple[str, ...]) -> list[Path]:
    return [path for path in _files(source) if any(fnmatchcase(path.name, glob) for glob in globs)]


def _files(source: Path) -> list[Path]:
    with _reading(source):
        if not source.is_dir():
            raise SourceError(f"{source}: no such folder, expected the path of a Hugging Face model folder")
        return sorted(path for path in source.iterdir() if path.is_file())


def _matching(glob: str) -> list[Path]:
    pattern = with_home(Path(glob))
    try:
        with _reading(pattern):
            if pattern.is_file():
                return [pattern]  # whatever characters of a glob are in its name
            found = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))) if pattern.name else ()
            matches = [path for path in found if path.is_file()]
    except ValueError as error:  # "a**", or a byte that no path has
        raise SourceError(f"{glob!r}: no path or glob of text files ({error})") from None
    if not matches:
        raise SourceError(f"{glob}: no such file, expected a path or glob of text files (relative to {Path.cwd()})")
    return matches


def _opened(path: Path) -> BinaryIO:
    with _reading(path):
        return path.open("rb")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert an OSError into a one-line SourceError that names the file."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{error.filename or path}: cannot be read ({error.strerror})") from None
