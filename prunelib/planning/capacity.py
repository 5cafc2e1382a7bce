"""Free disk and memory, and pre-flight errors if they are too small."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.filesize import decimal

from prunelib.errors import StageError

_CONTAINER, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_V2 = ("max", "current", "inactive_file")
_V1 = ("limit_in_bytes", "usage_in_bytes", "total_inactive_file")


class Free(NamedTuple):
    """Bytes free on the disk, in memory, and on the GPU that runs the models (None: no GPU)."""

    disk: int
    memory: int
    gpu: int | None


def require_disk(path: Path, size: int, what: str) -> None:
    """Check that the disk has enough free space.

    Parameters
    ----------
    path
        Where the data will be written; it need not exist yet.
    size
        Bytes needed.
    what
        Name of the data in the message: ``Gram matrices of all blocks``.

    Raises
    ------
    StageError
        If it has not; the message gives the bytes needed and the bytes free.
    """
    if size > (free := free_disk(path)):
        raise StageError(f"{what}: {path} needs {decimal(size)} on disk, {decimal(free)} free")


def require_memory(size: int, what: str, device: str) -> None:
    """Check that a device (``cpu``, ``cuda``, ``cuda:N``) has enough free memory.

    Raises
    ------
    StageError
        If it has not; the message gives the bytes needed and the bytes free.
    """
    if size > (free := free_memory(device)):
        raise StageError(f"{what}: needs {decimal(size)} of memory ({device}), {decimal(free)} free")


def free_disk(path: Path) -> int:
    """Return the bytes free to this user on the disk of a path, which need not exist yet."""
    path = path.absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def free_memory(device: str = "cpu") -> int:
    """Return the bytes that this process may still allocate on ``cpu``, ``cuda`` or ``cuda:N``."""
    if device == "cpu":
        return int(min(psutil.virtual_memory().available, _left_in_container()))
    import torch  # noqa: PLC0415 - for a GPU's memory only

    free, _ = torch.cuda.mem_get_info(device)
    return free


def free_gpu_memory(number: int = 0) -> int | None:
    """Return the bytes free on ``cuda:number``, from nvidia-smi and without torch; None without it or that GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = dict(enumerate(visible.split(","))) if visible is not None else {number: str(number)}
    words = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", f"--id={ids.get(number, '')}")
    try:
        shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=5).stdout
        return int(shown) * 1024**2
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _left_in_container() -> float:
    """Return the bytes left under the tightest memory limit of this process's control groups; infinity without a limit.

    A container's limit is at the root of the mount; that of a SLURM job or a systemd service is in the group of the
    process, or in a group above it.
    """
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    own = {controllers: Path(path) for _, controllers, path in (line.split(":", 2) for line in lines)}
    v2, v1 = own.get("", Path("/")), own.get("memory", Path("/"))
    unified = [_left(_below(_CONTAINER, group), *_V2) for group in (v2, *v2.parents)]
    return min(*unified, *(_left(_below(_CONTAINER / "memory", group), *_V1) for group in (v1, *v1.parents)))


def _below(mount: Path, group: Path) -> Path:
    return mount / group.relative_to("/")


def _left(group: Path, limit: str, used: str, droppable: str) -> float:
    """Return the bytes left under one control group's limit; reclaimable file cache counts as free."""
    try:
        most, taken = (int((group / f"memory.{name}").read_text()) for name in (limit, used))
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, most - taken + int(counts[droppable]))
    except (OSError, ValueError, KeyError):
        return float("inf")
