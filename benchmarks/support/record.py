"""Where a benchmark's figures go, and what they were measured on."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prunelib.runtime.machine import machine

RESULTS = Path(__file__).parents[1] / "results"


def write(name: str, figures: dict[str, Any]) -> None:
    """Write results/NAME.json: the figures, and date, commit, machine and versions."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=RESULTS, capture_output=True, text=True, check=True
    )
    measured = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": machine().refining_name,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numba")},
    }
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps({"measured": measured, **figures}, indent=2) + "\n", encoding="utf-8")
