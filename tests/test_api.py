"""The front door: its names are there when they are asked for, and not before."""

import subprocess
import sys

import pytest

import prunelib
from prunelib import api


def test_every_name_is_there_and_no_other():
    assert set(prunelib.__all__) == {name for name in vars(api) if not name.startswith("_")}
    assert all(getattr(prunelib, name) is getattr(api, name) for name in prunelib.__all__)
    with pytest.raises(AttributeError, match="module 'prunelib' has no attribute 'nothing'"):
        _ = prunelib.nothing


def test_the_package_shows_its_names_and_its_version():
    assert {name for name in dir(prunelib) if not name.startswith("_")} == set(prunelib.__all__)
    assert "__version__" in dir(prunelib)
    assert prunelib.__version__


def test_functions_have_the_names_under_which_they_are_imported():
    named = {name: getattr(prunelib, name) for name in prunelib.__all__}
    assert {name: value.__name__ for name, value in named.items()} == {name: name for name in named}


def test_importing_the_package_takes_no_torch():
    code = "import sys, prunelib, prunelib.errors; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout == "False\n"
