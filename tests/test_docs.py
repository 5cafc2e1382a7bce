"""The documentation's reference has every public name; `make docs` builds it, and fails on links that lead nowhere."""

import re
from pathlib import Path

import prunelib

LIBRARY = Path(__file__).parents[1] / "docs" / "pages" / "reference" / "library.md"


def test_the_reference_has_every_public_name_once():
    shown = re.findall(r"^::: (\S+)$", LIBRARY.read_text(encoding="utf-8"), re.MULTILINE)
    names = [name.rpartition(".")[2] for name in shown]
    assert sorted(names) == sorted(prunelib.__all__)
    for path in shown:
        public = getattr(prunelib, path.rpartition(".")[2])
        assert f"{public.__module__}.{public.__name__}" == path
