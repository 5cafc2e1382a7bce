"""Resuming killed work: the finished parts of a stage are kept in scratch/ for the next run.

DVC deletes a stage's outputs before it runs, so finished parts cannot be kept there. Their folder is named by the
stage's cell and a hash of everything that determines them: settings, inputs and code. A rerun of the same work reuses
them; changed work starts empty and removes the outdated parts. Each part is written under a temporary name and then
renamed (:mod:`prunelib.runtime.store`), so every part found is complete.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prunelib.errors import StageError
from prunelib.runtime import store

SCRATCH = Path("scratch")


class FinishedValues:
    """JSON values by name, stored in a folder for reuse by a later run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, name: str) -> bool:
        return self._file(name).exists()

    def write(self, name: str, value: Any) -> None:
        """Write a value atomically."""
        store.write_json(self._file(name), value)

    def read(self, name: str) -> Any:
        """Read a value."""
        return store.read_json(self._file(name))

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Read a value; compute and write it first if it is missing."""
        if name not in self:
            self.write(name, compute())
        return self.read(name)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


@contextlib.contextmanager
def resumable(name: str, decides: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a folder for the finished parts of some work; it is removed on success and kept on failure.

    Parameters
    ----------
    name
        Name of the work, valid as a file name: ``refine-smollm2_135m-0-row60-wanda-swaps``. Only one process at a time
        may work on it.
    decides
        Everything that determines the parts, including the code (:mod:`prunelib.runtime.code`), as JSON values.

    Raises
    ------
    StageError
        If another process works on it; the message gives its process id.
    """
    folder = SCRATCH / f"{name}-{store.sha256_json(dict(decides))[:16]}"
    with alone(name):
        for other in SCRATCH.glob(f"{name}-{'[0-9a-f]' * 16}"):
            if other != folder:
                shutil.rmtree(other)
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder)


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Lock a name in ``scratch/`` for the duration of a ``with`` block; the system frees the lock of a dead process.

    Raises
    ------
    StageError
        If another process has the lock; the message gives its process id.
    """
    lock, holder = FileLock(SCRATCH / f"{name}.lock"), SCRATCH / f"{name}.holder"
    SCRATCH.mkdir(exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        held_by = holder.read_text(encoding="utf-8").strip() if holder.is_file() else "another process"
        raise StageError(f"{name}: {held_by} works on it in this folder; wait for it, or stop it") from None
    try:
        holder.write_text(f"process {os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
