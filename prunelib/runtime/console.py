"""What a user sees of a fault: one line."""

import contextlib
import sys
import traceback
from collections.abc import Iterator

from prunelib.errors import PruneError


@contextlib.contextmanager
def one_line(*faults: type[Exception], show_traceback: bool = False) -> Iterator[None]:
    """Turn a user error inside the ``with`` block into one line and exit status 2.

    Parameters
    ----------
    faults
        Other exceptions to treat so.
    show_traceback
        Whether to print the traceback first.
    """
    kinds: tuple[type[Exception], ...] = (PruneError, *faults)
    try:
        yield
    except kinds as error:
        if show_traceback:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the message for the user
        sys.exit(2)
