"""What CONTRIBUTING.md names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`([\w./-]*[./][\w./-]*)`", TEXT)))
"""What stands in backticks, without spaces, and has a slash or a dot."""


@pytest.mark.parametrize("path", PATHS)
def test_a_path_exists(path):
    """NAME and OPERATION stand for any name."""
    assert list(ROOT.glob(re.sub("NAME|OPERATION", "*", path)))


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:\$ |`)make ([a-z0-9]+)", TEXT)) <= targets
