"""Where a benchmark's figures go, and the record of what they were measured on."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prunelib.runtime.machine import machine

RESULTS = Path(__file__).parents[1] / "results"


def write_results(name: str, figures: dict[str, Any], device: str | None = None) -> None:
    """Write results/NAME.json: the record, then the figures. Without ``device``, that of the machine's settings."""
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps({"measured": measured(device), **figures}, indent=2) + "\n", encoding="utf-8")


def measured(device: str | None) -> dict[str, str]:
    """Return date, commit, processor or GPU, and versions."""
    where = machine().model_copy(update={"device": device}) if device else machine()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": COMMIT,
        "machine": where.refining_name,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numba")},
    }


def commit() -> str:
    """Return the commit of this checkout, with ``-dirty`` where files differ from it."""
    words = ("git", "describe", "--always", "--dirty")
    try:
        found = subprocess.run(words, cwd=RESULTS, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # git is not installed
        found = ""
    return found or "not recorded"  # a copy of the files has no commit


COMMIT = commit()
"""Read when a benchmark starts: it may run for hours, while the checkout moves on."""
