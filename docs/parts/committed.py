"""Figures that git has: rows of the reports, and results of the benchmarks."""

import csv
import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEXTS = ("perplexity_wikipedia", "perplexity_sotu")
PATTERNS = {
    "row50": "50% per row",
    "row60": "60% per row",
    "row70": "70% per row",
    "nm24": "2:4",
    "nm48": "4:8",
    "nm68": "6:8",
}
Rows = list[dict[str, str]]


@cache
def reported(name: str) -> Rows:
    """Return the rows of a CSV file under reports/, as git has it."""
    words = ("git", "show", f":reports/{name}")
    return list(csv.DictReader(subprocess.check_output(words, cwd=ROOT, text=True).splitlines()))


def benchmarked(name: str) -> dict[str, Any]:
    """Return a file under benchmarks/results/."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def measured(record: Mapping[str, Any]) -> str:
    """Return machine, date and commit of a measurement, for the line below its table."""
    found = record["measured"]
    return f"{found['machine']}; {found['date']}, commit {found['commit']}"


def cell(row: Mapping[str, str]) -> tuple[str, str, str]:
    """Return pattern, warm start and refiner."""
    return row["pattern"], row["warmstart"], row["refiner"]


def dense(name: str, column: str) -> float:
    """Return a perplexity of the dense model."""
    return next(float(row[column]) for row in reported(name) if not row["pattern"])
