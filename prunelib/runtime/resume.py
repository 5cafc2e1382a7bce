"""Resuming killed work: the finished parts of a stage are kept in scratch/ for the next run.

DVC deletes a stage's outputs before it runs, so finished parts cannot be kept there. Their folder is named by the
stage's cell and a hash of everything that determines them: settings, inputs, code, and the versions of libraries. A
rerun of the same work reuses them; changed work starts empty and removes the outdated parts. Each part is written under
a temporary name and then renamed (:mod:`prunelib.runtime.atomic`), so every part found is complete.
"""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout

from prunelib.errors import ArtifactError, StageError
from prunelib.runtime import atomic, hashing, store

SCRATCH = Path("scratch")
_VALUE, _HASH = "value", "[0-9a-f]" * 16
_LIBRARIES = ("lm-eval", "numba", "torch", "transformers")


Part = TypeVar("Part", int, str)
Value = TypeVar("Value")


class FinishedParts(ABC, Generic[Part, Value]):
    """The finished parts of some work, each a file or a folder of its own, from which a later run resumes.

    Parameters
    ----------
    folder
        Where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, part: Part) -> bool:
        return self.find(part) is not None

    def find(self, part: Part) -> Value | None:
        """Return a part if it is finished; what is there but cannot be read is removed."""
        if not os.path.lexists(self.path(part)):
            return None
        try:
            return self.read(part)
        except ArtifactError:
            atomic.remove(self.path(part))
            return None

    @abstractmethod
    def path(self, part: Part) -> Path:
        """Return the file or folder of a part."""

    @abstractmethod
    def write(self, part: Part, value: Value) -> None:
        """Write a part completely or not at all."""

    @abstractmethod
    def read(self, part: Part) -> Value:
        """Read a part."""

    def once(self, part: Part, compute: Callable[[], Value]) -> Value:
        """Read a part; compute and write it first if it is missing."""
        found = self.find(part)
        if found is None:
            self.write(part, compute())
            found = self.read(part)
        return found


class FinishedValues(FinishedParts[str, Any]):
    """JSON values by name."""

    def path(self, part: str) -> Path:
        """Return the file of a value."""
        return self.folder / f"{part}.json"

    def write(self, part: str, value: Any) -> None:
        """Write a value atomically."""
        store.write_record(self.path(part), _VALUE, {_VALUE: value})

    def read(self, part: str) -> Any:
        """Read a value."""
        return store.read_record(self.path(part), _VALUE)[_VALUE]


@contextlib.contextmanager
def resumable(name: str, decides: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a folder for the finished parts of some work; it is removed on success and kept on failure.

    Folders are renamed before they are removed, and errors of the removal are ignored: neither a kill nor a file that
    another process holds open can leave a folder that a later run takes for whole.

    Parameters
    ----------
    name
        Name of the work, valid as a file name: ``refine-smollm2_135m-0-row60-wanda-swaps``. Only one process at a time
        may work on it.
    decides
        Everything that determines the parts, including the code (:mod:`prunelib.runtime.code`), as JSON values;
        versions of libraries are added.

    Raises
    ------
    StageError
        If another process works on it; the message gives its process id.
    """
    folder = SCRATCH / f"{name}-{hashing.sha256_json([dict(decides), _versions()])[:16]}"
    with alone(name):
        for other in SCRATCH.glob(f"{name}-{_HASH}"):
            if other != folder:
                atomic.remove(other)
        for removed in SCRATCH.glob(f".{name}-{_HASH}.*.partial"):  # by a process that was killed meanwhile
            atomic.discard(removed)
        with _accessible(folder):
            folder.mkdir(exist_ok=True)
        yield folder
        atomic.remove(folder)


def _versions() -> dict[str, str]:
    """Return the versions of those libraries that are installed."""
    installed = ((name, next(iter(distributions(name=name)), None)) for name in _LIBRARIES)
    return {name: found.version for name, found in installed if found}


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Lock a name in ``scratch/`` for the duration of a ``with`` block; the system frees the lock of a dead process.

    Raises
    ------
    StageError
        If another process has the lock; the message gives its process id.
    """
    lock, holder = FileLock(SCRATCH / f"{name}.lock"), SCRATCH / f"{name}.holder"
    try:
        with _accessible(SCRATCH):
            SCRATCH.mkdir(exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        held_by = holder.read_text(encoding="utf-8").strip() if holder.is_file() else "another process"
        raise StageError(f"{name}: {held_by} runs it in this folder; wait for it, or stop it") from None
    try:
        with _accessible(holder):
            holder.write_text(f"process {os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _accessible(path: Path) -> Iterator[None]:
    """Convert the system's refusal to use a path of ``scratch/`` into one line."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise StageError(f"{path}: cannot be used ({error.strerror}); remove it, or make it writable") from None
