"""Results carry the record of what they were measured on, and the index names every script.

Benchmarks that cannot be run here run through at tiny sizes.
"""

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import tables

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
INDEX = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
RESULTS = sorted(file.name for file in (BENCHMARKS / "results").iterdir())
RECORD = {"date", "commit", "machine", "python", "torch", "numba"}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_file_says_what_it_was_measured_on(name):
    measured = json.loads((BENCHMARKS / "results" / name).read_text(encoding="utf-8"))["measured"]
    assert measured.keys() >= RECORD
    assert all(isinstance(value, str) and value.strip() for value in measured.values())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", measured["date"])


def test_the_index_names_every_script_and_no_other():
    scripts = {
        script.relative_to(ROOT).as_posix()
        for folder in ("speed", "experiments", "faults", "correctness")
        for script in (BENCHMARKS / folder).glob("*.py")
    }
    assert set(re.findall(r"python (benchmarks/\S+\.py)", INDEX)) == scripts


def test_the_index_names_every_result_file():
    assert set(RESULTS) <= set(re.findall(r"`([\w-]+\.json)`", INDEX))


def test_the_families_are_those_of_the_benchmark():
    results = json.loads((BENCHMARKS / "results" / "families.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "pages" / "how-to" / "model.md").read_text(encoding="utf-8")
    for text, block in ((INDEX, "families_in_table"), (page, "families_listed")):
        assert f"<!-- {block} -->\n{tables.TABLES[block]()}<!-- /{block} -->" in text
    outcomes = Counter(record["outcome"] for record in results["families"])
    assert outcomes["right"] >= 120
    assert outcomes.keys() <= {"right", "refused", "not built"}


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_benchmark_for_gpus_runs_dry_and_finds_nothing_wrong():
    words = [sys.executable, "benchmarks/speed/gpu.py", "--dry"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "s in all" in ended.stdout
