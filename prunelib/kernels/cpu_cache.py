"""Where compiled kernels are kept on a CPU: one folder for all copies of the library with the same kernels.

numba alone takes a compiled kernel from its cache for as long as the kernel's own file stays the same. But compiled
code also holds functions and constants of other files: after an upgrade that changes only those, the old ones would
go on running.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numba
import platformdirs

_KERNELS = Path(__file__).parent


@contextmanager
def kernels_kept() -> Iterator[None]:
    """Have numba keep the kernels that are decorated meanwhile in the folder of their present sources."""
    before = numba.config.CACHE_LOCATOR_CLASSES
    numba.config.CACHE_LOCATOR_CLASSES = f"{__name__}.{_Locator.__name__}"
    try:
        yield
    finally:
        numba.config.CACHE_LOCATOR_CLASSES = before


class _Locator:
    """Tells numba where a kernel's compiled code belongs; the methods are those that numba calls."""

    def __init__(self, folder: Path, line: int) -> None:
        self.folder, self.line = folder, line

    @classmethod
    def from_function(cls, function: Callable, file: str) -> "_Locator":
        return cls(_folder() / Path(file).relative_to(_KERNELS).parent, function.__code__.co_firstlineno)

    def ensure_cache_path(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self.folder)

    def get_source_stamp(self) -> str:
        return _sources()

    def get_disambiguator(self) -> str:
        return str(self.line)


@cache
def _folder() -> Path:
    """Return a folder that can be written to: in NUMBA_CACHE_DIR, else in the user's cache, else a temporary one."""
    cache = Path(numba.config.CACHE_DIR or platformdirs.user_cache_path("prunelib"))
    if cache.parts[0] != "~":  # which stays for a user without a home, as in some containers
        kept = cache / f"kernels-{_sources()}"
        with suppress(OSError):
            kept.mkdir(parents=True, exist_ok=True)
        if os.access(kept, os.W_OK):
            return kept
    temporary = tempfile.mkdtemp(prefix="prunelib-kernels-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)


@cache
def _sources() -> str:
    """Hash numba's version, whether it checks bounds, and the names and contents of all files of kernels."""
    found = hashlib.sha256(f"{numba.__version__} {numba.config.BOUNDSCHECK}".encode())
    for file in sorted(_KERNELS.rglob("*.py")):
        found.update(file.relative_to(_KERNELS).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]
