"""The library that runs must be the project's: DVC reruns stages by the code in the project's folder."""

from pathlib import Path

import prunelib
from prunelib.errors import StageError


def require_own_library() -> None:
    """Check that the library that runs is the one in the working directory, if there is one.

    A library installed by ``pip install .`` is a copy of its time; in a second working tree, an editable one is that of
    the first. What they compute would be recorded as made by the code here.

    Raises
    ------
    StageError
        If another one runs; the message gives both folders and two ways to run the project's.
    """
    own, running = Path("prunelib").resolve(), Path(prunelib.__file__).resolve().parent
    if (own / "__init__.py").is_file() and own != running:
        raise StageError(
            f"{running} runs, but the project's library is {own}; pip install -e '.[workflow,evaluate]' here, "
            f"or set PYTHONPATH={own.parent}"
        )
