"""File operations of this process inside a folder: counted, stopped by a signal, and refused as clients of NFS do."""

import errno
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch

_NAMED_FIRST = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime"})
_NAMED_SECOND = frozenset({"os.link", "os.symlink"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Operations:
    """An audit hook (:func:`sys.addaudithook`) that is called before each change of a file or folder.

    Parameters
    ----------
    folder
        Changes elsewhere, such as those of compiled code, are not counted.
    begin
        Callback: receives the number of the operation, from 1, before it happens.
    first_read
        Callback: called when a file of the folder is opened for the first time.
    """

    def __init__(self, folder: Path, begin: Callable[[int], None], first_read: Callable[[], None]) -> None:
        self._folder, self._begin, self._first_read = str(folder), begin, first_read
        self._numbers, self._read = itertools.count(1), False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of an event of the interpreter."""
        if event == "open":
            path, _, flags = arguments
            if self._inside(path):
                self._note_read(path)
                if flags & _WRITING:
                    self.next()
        elif (event in _NAMED_FIRST and self._concerns(arguments[0], arguments)) or (
            event in _NAMED_SECOND and self._concerns(arguments[1], arguments)
        ):
            self.next()

    def next(self) -> None:
        """Count an operation."""
        self._begin(next(self._numbers))

    def install_where_no_event_is(self) -> None:
        """Count what the interpreter has no event for: fsync, and the files that safetensors writes."""
        os.fsync = self._before(os.fsync)
        safetensors.torch.serialize_file = self._before(safetensors.torch.serialize_file)

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.next()
            return function(*arguments, **options)

        return counted

    def _note_read(self, path: Any) -> None:
        if not self._read and not str(path).endswith(".py"):
            self._read = True
            self._first_read()

    def _concerns(self, path: Any, arguments: tuple[Any, ...]) -> bool:
        """Return whether a path is inside the folder; one that is relative to a descriptor is taken to be."""
        in_descriptor = any(isinstance(each, int) and each >= 0 for each in arguments[-1:])
        return in_descriptor or self._inside(path)

    def _inside(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self._folder)  # noqa: PTH100 - bytes and what is not there


def refuse_removal(folder: Path) -> None:
    """Remove and replace files of ``folder`` as a client of NFS does: one that this process uses is renamed instead.

    It becomes ``.nfs...`` in its folder, which can therefore not be removed; the system removes it when the process
    ends (:func:`forget_removed`). Linux only: what is in use is read from /proc.
    """
    numbers, unlink, rename = itertools.count(), os.unlink, os.rename

    def set_aside(path: Any, descriptor: int | None) -> bool:
        try:
            status = os.stat(path, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if (status.st_dev, status.st_ino) not in _in_use(folder):
            return False
        name = os.fsdecode(path)
        if os.path.basename(name).startswith(".nfs"):  # noqa: PTH119 - relative to a descriptor
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
        hidden = os.path.join(os.path.dirname(name), f".nfs{os.getpid()}.{next(numbers)}")  # noqa: PTH118, PTH120
        rename(path, hidden, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        return True

    def remove(path: Any, *, dir_fd: int | None = None) -> None:
        if not set_aside(path, dir_fd):
            unlink(path, dir_fd=dir_fd)

    def move(source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        if not os.path.isdir(target):  # noqa: PTH112 - relative to a descriptor
            set_aside(target, dst_dir_fd)
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    os.unlink = os.remove = remove
    os.rename = os.replace = move


def forget_removed(folder: Path) -> None:
    """Remove the ``.nfs...`` files of a process that has ended."""
    for file in list(folder.rglob(".nfs*")):
        file.unlink()


def _in_use(folder: Path) -> set[tuple[int, int]]:
    """Return device and number of all files that this process has mapped or open."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    mapped = {line[line.index("/") :] for line in lines if str(folder) in line}
    found = [os.stat(path) for path in mapped if os.path.exists(path)]  # noqa: PTH110, PTH116 - no hook on these
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as above
        try:
            found.append(os.fstat(int(descriptor)))
        except OSError:  # the one that listed them
            continue
    return {(status.st_dev, status.st_ino) for status in found}


def stop_with(number: int) -> None:
    """Send a signal to this process; SIGINT raises KeyboardInterrupt here, the others end it."""
    os.kill(os.getpid(), number)
    if number != signal.SIGINT:
        raise SystemExit(f"still there after signal {number}")
