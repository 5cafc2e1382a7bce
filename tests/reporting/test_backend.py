"""Figures are drawn whatever backend the environment names."""

import os
import subprocess
import sys

import pytest

CODE = """
import os
import prunelib.reporting, matplotlib
print(os.environ.get("MPLBACKEND"), matplotlib.rcParams._get("backend"))
"""


@pytest.mark.parametrize(
    ("named", "used"),
    [("module://not_installed.backend_inline", None), ("no_backend", None), ("svg", "svg"), ("", None)],
)
def test_a_backend_that_is_not_installed_is_no_fault(named, used):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "MPLBACKEND": named},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept, backend = done.stdout.removesuffix("\n").split(" ", 1)
    assert kept == named  # other programs see what they were given
    assert used is None or backend == used
