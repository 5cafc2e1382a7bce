"""The identity of code: changes with what it computes, and with nothing else."""

import pytest

from prunelib.runtime.code import read_code

SOURCE = '''"""What it is for."""

VALUE = 1


class Thing:
    """A thing."""


def double(x):
    """Twice the value."""
    return 2 * x  # by multiplication
'''


def identity(folder, source):
    (folder / "module.py").write_text(source)
    return read_code(folder / "module.py").identity


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # by multiplication", ""),
        ('"""Twice the value."""', '"""Return the value, twice.\n\n    It is doubled.\n    """'),
        ('    """A thing."""\n', "    pass\n"),
        ('"""What it is for."""', ""),
        ("VALUE = 1\n", "VALUE = (\n    1\n)\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(tmp_path, old, new):
    assert SOURCE.replace(old, new) != SOURCE
    assert identity(tmp_path, SOURCE.replace(old, new)) == identity(tmp_path, SOURCE)


@pytest.mark.parametrize(("old", "new"), [("2 * x", "x * 2"), ("VALUE = 1", "VALUE = 2"), ("(x)", "(x, y=0)")])
def test_what_it_computes_counts(tmp_path, old, new):
    assert identity(tmp_path, SOURCE.replace(old, new)) != identity(tmp_path, SOURCE)
