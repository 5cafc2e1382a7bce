"""What disk and memory have free, and the refusal, before any work, of what they cannot hold."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.filesize import decimal

from prunelib.errors import StageError

_CONTAINER = Path("/sys/fs/cgroup")


class Room(NamedTuple):
    """Bytes free on the disk, in memory, and on the GPU that runs the models: None where none does."""

    disk: int
    memory: int
    gpu: int | None


def require_disk(path: Path, size: int, what: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Parameters
    ----------
    path
        Where it will be written; it need not exist yet.
    size
        Bytes that it will take.
    what
        What will be written: ``Gram matrices of all blocks``.

    Raises
    ------
    StageError
        With what it needs and what is free.
    """
    if size > (free := free_disk(path)):
        raise StageError(f"{what}: {path} needs {decimal(size)} on disk, {decimal(free)} free")


def require_memory(size: int, what: str, device: str) -> None:
    """Refuse to begin what the memory of a device (``cpu``, ``cuda``, ``cuda:N``) cannot hold beside what is there.

    Raises
    ------
    StageError
        With what it needs and what is free.
    """
    if size > (free := free_memory(device)):
        raise StageError(f"{what}: needs {decimal(size)} of memory ({device}), {decimal(free)} free")


def free_disk(path: Path) -> int:
    """Bytes free to this user where a path is, or will be."""
    path = path.absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def free_memory(device: str = "cpu") -> int:
    """Bytes that this process may still take on ``cpu``, ``cuda`` or ``cuda:N``."""
    if device == "cpu":
        return int(min(psutil.virtual_memory().available, _left_in_container()))
    import torch  # noqa: PLC0415 - for a GPU's memory only

    free, _ = torch.cuda.mem_get_info(device)
    return free


def free_gpu_memory() -> int | None:
    """Bytes free on the first GPU as its driver's own tool says, without torch; None where there is no such tool."""
    words = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", "--id=0")
    try:
        shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=5).stdout
        return int(shown) * 1024**2
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _left_in_container() -> float:
    """Bytes left of the limit of this container's memory, what it could drop from its file cache counted as left."""
    try:
        limit, used = (int((_CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        counts = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(counts["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return float("inf")
