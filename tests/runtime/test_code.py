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


def test_every_version_of_python_finds_the_same(tmp_path):
    source = (
        "class A(B, key=1):\n"
        "    async def f(self, *a, b=None, **c) -> int:\n"
        "        return [*a, b, {**c, 'd': f'{b!r:>4} e' 'g'}, -1e-9, ..., b'']\n"
        "def nothing(): return None\n"
        "try: lambda: ()\nexcept (E, F): pass\n"
    )
    found_by_311_to_313 = "84d5956e2535a087ac4adebe3686dc98acb09df6ce7f1daef4188f384a1e0282"
    assert identity(tmp_path, source) == found_by_311_to_313
