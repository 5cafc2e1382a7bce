"""Files and folders that are written under a temporary name and renamed, so that a kill leaves the old or the new."""

import contextlib
import errno
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from prunelib.errors import ArtifactError

_NO_GAP = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the folder of ``path``; on success it becomes ``path``, on failure it is removed.

    Raises
    ------
    ArtifactError
        If the file could not be written (disk full, no permission). The previous ``path`` is kept.
    """
    temporary = _partial(path)
    with _writing(path):
        _make_way(path)
        temporary.touch()
        mode = _new_file_mode(temporary)
    try:
        with _filling(path):
            yield temporary
        with _writing(path):
            temporary.chmod(mode)
            _sync(temporary)
            temporary.replace(path)
        _sync_names(path.parent)
    finally:
        discard(temporary)


def require_new(folder: Path) -> Path:
    """Return a folder of the user's that :func:`replacing_folder` can write, with links followed: new or empty.

    Raises
    ------
    ArtifactError
        If it is anything else, or cannot be written.
    """
    with _writing(folder):
        target = Path(os.path.realpath(folder))
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ArtifactError(f"{folder}: exists already, expected a new or empty folder")
        if target.is_mount() or Path.cwd().is_relative_to(target):  # they cannot be replaced
            what = "a mount point" if target.is_mount() else "the working directory"
            raise ArtifactError(f"{folder}: {what}, expected a new folder, such as {folder / 'pruned'}")
        probe = next(parent for parent in target.parents if parent.exists()) / _partial(target).name
        probe.mkdir()
        probe.rmdir()
    return target


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to ``path``; on success it becomes ``path``, on failure it is removed.

    Raises
    ------
    ArtifactError
        As :func:`replacing`.
    """
    temporary = _partial(path)
    with _writing(path):
        _make_way(path)
        temporary.mkdir()
        mode = _new_file_mode(temporary)
    try:
        with _filling(path):
            yield temporary
        with _writing(path):
            for made in (*temporary.rglob("*"), temporary):
                if made.is_dir():
                    _sync_names(made)
                else:
                    made.chmod(mode)
                    _sync(made)
            _exchange(temporary, path)
        _sync_names(path.parent)
    finally:
        discard(temporary)


def remove(path: Path) -> None:
    """Remove a file or folder: no longer there under its name at once, whatever happens during the removal.

    It is renamed first, so that a kill never leaves a part of it under its name. What cannot be removed, such as a file
    of NFS that a process still has open, stays under the new name until the next write or removal of ``path``.

    Raises
    ------
    ArtifactError
        If it could not be renamed.
    """
    if not os.path.lexists(path):
        return
    with _writing(path):
        _make_way(path)
        asides = (path.with_name(f".{path.name}.{os.getpid()}.{number}.partial") for number in itertools.count())
        aside = next(name for name in asides if not os.path.lexists(name))
        path.rename(aside)
    discard(aside)


def discard(path: Path) -> None:
    """Remove a file or folder that nothing reads under its name; if that fails, the next write tries again."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def publish(folder: Path, path: Path) -> None:
    """Replace ``path`` atomically by a copy of a finished folder; files are hard-linked if possible.

    Raises
    ------
    ArtifactError
        As :func:`replacing`.
    """
    with replacing_folder(path) as target:
        shutil.copytree(folder, target, copy_function=_link, dirs_exist_ok=True)


def _partial(path: Path) -> Path:
    """Return the hidden temporary name, in the same folder, under which this process writes ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _make_way(path: Path) -> None:
    """Create the parent folder of ``path``, and remove the leftovers of killed writers of ``path``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, f"{path.parent} is not a folder") from error
    name = re.compile(rf"\.{re.escape(path.name)}\.([1-9]\d{{0,8}})(\.old|\.\d+)?\.partial")
    for found in list(path.parent.iterdir()):
        leftover = name.fullmatch(found.name)
        if leftover is None or _is_other_process(int(leftover[1])):
            continue
        if leftover[2] == ".old":
            _put_back(found, path)
        else:
            discard(found)


def _is_other_process(pid: int) -> bool:
    """Return whether ``pid`` is a running process other than this one; a killed one may still be listed as a zombie."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
    except (PermissionError, psutil.AccessDenied):
        return True  # it runs as another user


def _new_file_mode(made: Path) -> int:
    """Return the mode of new files, 0666 less the umask, from what was just made; safetensors makes its files 0600."""
    return made.stat().st_mode & 0o666


def _exchange(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``; the old ``path`` is set aside meanwhile, so a kill at any time loses neither."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old.partial")
    try:
        if os.path.lexists(path):
            path.rename(old)
        new.rename(path)
    finally:
        _put_back(old, path)


def _put_back(old: Path, path: Path) -> None:
    """Rename ``old`` back to ``path`` if nothing replaced it; otherwise discard it."""
    if os.path.lexists(old) and not os.path.lexists(path):
        old.rename(path)
    discard(old)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Convert an OSError in the library's own steps into one line that names the file."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error.strerror) from None


@contextlib.contextmanager
def _filling(path: Path) -> Iterator[None]:
    """Convert write errors in the caller's steps as :func:`_writing` does; other errors may concern files it reads."""
    from safetensors import SafetensorError  # noqa: PLC0415 - import torch only for tensors

    try:
        yield
    except OSError as error:
        if error.errno not in _NO_GAP:
            raise
        raise _unwritable(path, error.strerror) from None
    except SafetensorError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, reason: object) -> ArtifactError:
    return ArtifactError(f"{path}: cannot be written ({reason}); nothing was changed")


def _link(source: str, target: str) -> None:
    """Hard-link a file, or copy it if the file system cannot link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_names(folder: Path) -> None:
    """Make a rename durable if the system supports it; the renamed file is complete either way."""
    with contextlib.suppress(OSError):
        _sync(folder)
