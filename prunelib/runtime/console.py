"""What a user sees of a fault: one line."""

import contextlib
import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from prunelib.errors import PruneError, in_one_line


@contextlib.contextmanager
def one_line(*, show_traceback: bool = False, resumes: bool = True) -> Iterator[None]:
    """Turn a user error inside the ``with`` block into one line and exit status 2.

    The same for a refusal of the operating system; an interrupt (Ctrl-C) ends with status 130.

    Parameters
    ----------
    show_traceback
        Whether to print the traceback first.
    resumes
        Whether a run after an interrupt goes on from finished parts, as a stage does.
    """
    try:
        with _interruptible():
            yield
    except (PruneError, OSError, KeyboardInterrupt) as error:
        if show_traceback:
            traceback.print_exc()
        more = "; run it again, and it continues from its finished parts" if resumes else ""
        line = f"interrupted{more}" if isinstance(error, KeyboardInterrupt) else _line(error)
        print(f"error: {line}", file=sys.stderr)  # noqa: T201 - the message for the user
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 2)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt in place of any error that follows an interrupt, which libraries may turn into their own.

    torch does: an interrupt while safetensors reads a tensor came out as a file that is damaged.
    """
    interrupts = []

    def interrupt(*_: object) -> None:
        interrupts.append(True)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception:
        if interrupts:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _line(error: Exception) -> str:
    match error:
        case OSError(filename=str() | bytes() as file, strerror=str() as reason):
            return f"{os.fsdecode(file)}: {reason}"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT, strerror=str() as reason):
            return f"{reason}: the disk of {Path.cwd()}, or of temporary files (TMPDIR = {_temporary_folder()})"
        case OSError(strerror=str() as reason):
            return reason
    return in_one_line(error)


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return os.environ.get("TMPDIR", "")
