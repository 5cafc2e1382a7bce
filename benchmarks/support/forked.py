"""Scripts in forked children of a process that has the libraries imported: they run at once, and can be killed."""

import atexit
import importlib
import mmap
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from file_operations import Operations, forget_removed, refuse_removal, stop_with

from prunelib.model import blockwise
from prunelib.stage_code import code_of

LONGEST = 180.0
"""Seconds after which a script counts as stuck; undisturbed ones take a few."""
_POLL = 0.0005
_IMPORTED_LATE = (
    "prunelib.cli.apply",
    "prunelib.cli.export",
    "prunelib.evaluation.harness",
    "prunelib.kernels.frank_wolfe.cpu",
    "prunelib.kernels.swaps.cpu",
    "scipy.io",
    "transformers.models.llama.modeling_llama",
)


@dataclass(frozen=True)
class Script:
    """A script or module with its arguments.

    Attributes
    ----------
    words
        ``stages/refine.py --model tiny ...``, relative to the folder it runs in, or the name of a module.
    saves
        Whether it saves the hidden states after every block, rather than once a minute.
    """

    words: Sequence[str]
    saves: bool = False


@dataclass(frozen=True)
class Kill:
    """A signal before the file operation of a number, from 1, or some seconds after the first file has been read."""

    signal: int
    before: int | None = None
    after: float | None = None


class Ended(NamedTuple):
    """How a script ended.

    ``status`` is its exit status, negative the signal that ended it, None if it was stuck; ``operations`` how many file
    operations it began; ``seconds`` the time since it read the first file.
    """

    status: int | None
    operations: int
    seconds: float
    said: str


def prepare(folder: Path) -> None:
    """Import what the scripts in a folder import, at once or late, and hash what they hash: children need not."""
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    for script in sorted(folder.glob("*.py")):
        runpy.run_path(str(script), run_name="imported")
        if script.stem in {"calibrate", "refine", "evaluate"}:
            code_of(script.stem)


def run(script: Script, folder: Path, kill: Kill | None = None, *, refuses: bool = False) -> Ended:
    """Run a script in a folder, kill it, and return how it ended.

    Parameters
    ----------
    refuses
        Whether files in use cannot be removed (:func:`file_operations.refuse_removal`).
    """
    if threads := _other_threads():
        raise RuntimeError(f"this process has the threads {threads}, which its children would lack")
    shared = mmap.mmap(-1, 16)
    counts = memoryview(shared).cast("q")  # operations begun, and whether a file has been read
    output = folder.with_name(f"{folder.name}.txt")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _become(script, folder, kill, refuses, counts, output)
    status, seconds = _wait(child, kill, counts)
    forget_removed(folder)
    return Ended(status, counts[0], seconds, output.read_text(encoding="utf-8", errors="replace"))


def _other_threads() -> list[str]:
    """Return the names of this process's threads but the first, and but that of pyarrow's allocator, which may fork."""
    names = sorted(file.read_text(encoding="utf-8").strip() for file in Path("/proc/self/task").glob("*/comm"))
    return [name for name in names if name != "jemalloc_bg_thd"][1:]


def _wait(child: int, kill: Kill | None, counts: memoryview) -> tuple[int | None, float]:
    """Wait for a child, and send it the signal of a moment; its status and the seconds since it read the first file."""
    begun, started, sent = 0.0, time.monotonic(), kill is None or kill.after is None
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        now = time.monotonic()
        if ended:
            return os.waitstatus_to_exitcode(status), now - (begun or now)
        begun = begun or (now if counts[1] else 0.0)
        if not sent and begun and now - begun >= kill.after:
            os.kill(child, kill.signal)
            sent = True
        if now - started > LONGEST:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, now - started
        time.sleep(_POLL)


def _become(script: Script, folder: Path, kill: Kill | None, refuses: bool, counts: memoryview, output: Path) -> None:
    """Run a script in this process, which ends with it as an interpreter does."""
    status = 1
    try:
        atexit._clear()  # what the parent would do at its end, such as remove its folders
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _redirect(output)
        os.chdir(folder)
        _prepare(script, folder, kill, refuses, counts)
        status = _status_of(script.words)
        threading._shutdown()  # joins all threads, as the interpreter does
        atexit._run_exitfuncs()  # as above
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # of this file's own, which the parent must not go through
        traceback.print_exc()
    finally:
        os._exit(status)


def _redirect(output: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for source, target in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(written)


def _prepare(script: Script, folder: Path, kill: Kill | None, refuses: bool, counts: memoryview) -> None:
    """Count this process's file operations, and have it stop before one."""

    def begin(number: int) -> None:
        counts[0] = number
        if kill and number == kill.before:
            stop_with(kill.signal)

    def first_read() -> None:
        counts[1] = 1

    temporary = folder / "temporary"  # where what is left is found
    temporary.mkdir(exist_ok=True)
    tempfile.tempdir = str(temporary)
    if script.saves:
        blockwise.SECONDS_BETWEEN_SAVES = 0.0
    if refuses:
        refuse_removal(folder)
    operations = Operations(folder, begin, first_read)
    operations.install_where_no_event_is()
    sys.addaudithook(operations)


def _status_of(words: Sequence[str]) -> int:
    """Run a script or a module as the main one, and return the exit status that the interpreter would."""
    sys.argv = list(words)
    try:
        if words[0].endswith(".py"):
            runpy.run_path(words[0], run_name="__main__")
        else:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # whatever a script raises
        traceback.print_exc()
        return 1
    return 0
