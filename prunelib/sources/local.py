"""Files of this machine: copied or read one by one, chosen by name."""

import shutil
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from prunelib.errors import SourceError


def copy_files(source: Path, globs: Iterable[str], folder: Path) -> None:
    """Copy the files directly in ``source`` whose name matches any of the globs.

    Raises
    ------
    SourceError
        If ``source`` is no folder.
    """
    if not source.is_dir():
        raise SourceError(f"{source}: no such folder, expected the path of a Hugging Face model folder")
    patterns = tuple(globs)
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatchcase(path.name, glob) for glob in patterns):
            shutil.copyfile(path, folder / path.name)


def read_files(globs: Iterable[str]) -> dict[str, bytes]:
    """The contents of all files that match any of the globs, by path, in the order of their paths.

    Raises
    ------
    SourceError
        If a glob matches no file.
    """
    found: set[Path] = set()
    for glob in globs:
        pattern = Path(glob)
        matches = {
            path for path in Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))) if path.is_file()
        }
        if not matches:
            raise SourceError(f"{glob}: no such file, expected a path or glob of text files (relative to {Path.cwd()})")
        found |= matches
    return {path.as_posix(): path.read_bytes() for path in sorted(found)}
