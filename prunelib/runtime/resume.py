"""Work that goes on after it was killed: what a stage has finished waits in scratch/ for the next run.

DVC empties a stage's outputs before it runs, so parts that are finished cannot wait there. They stand in a folder whose
name is made of all that decides them: the stage's cell, its settings, its inputs and the code. The same work finds them
again; other work finds none, and removes those that are out of date. A part is written under a temporary name and
renamed (:mod:`prunelib.runtime.store`), so what stands there is whole.
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
    """JSON values by name, in a folder where a later run finds them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, name: str) -> bool:
        return self._file(name).exists()

    def write(self, name: str, value: Any) -> None:
        """Write a value, whole or not at all."""
        store.write_json(self._file(name), value)

    def read(self, name: str) -> Any:
        """Read a value."""
        return store.read_json(self._file(name))

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Read a value, which is computed and written first where it is not there."""
        if name not in self:
            self.write(name, compute())
        return self.read(name)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


@contextlib.contextmanager
def resumable(name: str, decides: Mapping[str, Any]) -> Iterator[Path]:
    """A folder for the finished parts of some work; it is removed when the work is done, and stays when it fails.

    Parameters
    ----------
    name
        Of the work, a file name: ``refine-smollm2_135m-0-row60-wanda-swaps``. One process at a time works on it.
    decides
        All that decides the parts, the code (:mod:`prunelib.runtime.code`) too, as JSON values.

    Raises
    ------
    StageError
        If another process works on it; the message says which.
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
    """Hold a name's lock in ``scratch/``, which the system takes back from a process that ends in any way.

    Raises
    ------
    StageError
        If another process holds it; the message says which.
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
