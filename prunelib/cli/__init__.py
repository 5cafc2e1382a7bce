"""The subcommands of ``prunelib``; see ``prunelib NAME --help``."""

import os
import sys
from pathlib import Path


def search_path() -> str:
    """Return the variable PATH with this Python's commands first: its environment may not be activated."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
