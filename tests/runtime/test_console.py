"""Every fault of a user or of the system is one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prunelib.errors import ArtifactError, ParamsError
from prunelib.runtime.console import one_line

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (ParamsError("grid: wrong"), "error: grid: wrong\n", 2),
        (ParamsError("of two\n  lines"), "error: of two lines\n", 2),
        (PermissionError(13, "Permission denied", "/some/file"), "error: /some/file: Permission denied\n", 2),
        (OSError(28, "No space left on device"), "error: No space left on device: the disk of /", 2),
        (OSError(122, "Disk quota exceeded"), "error: Disk quota exceeded: the disk of /", 2),
        (FileNotFoundError(2, "No such file", b"/bytes"), "error: /bytes: No such file\n", 2),
        (KeyboardInterrupt(), "error: interrupted", 130),
    ],
)
def test_it_names_the_file_and_the_reason(error, line, status, capsys):
    with pytest.raises(SystemExit) as ended, one_line():
        raise error
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize("error", [ValueError("no shape"), ArtifactError("damaged")])
def test_an_interrupt_that_a_library_turned_into_its_own_error_is_one(error, interrupts, capsys):
    with pytest.raises(SystemExit) as ended, one_line():
        interrupted_in_a_library(error)
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("error: interrupted")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupted_in_a_library(error):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise error from None


@pytest.fixture
def interrupts():
    """Those of the terminal arrive, as they do not in workers of the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), one_line():
        raise ZeroDivisionError


@pytest.mark.parametrize("stage", sorted((ROOT / "stages").glob("*.py")), ids=lambda path: path.stem)
def test_an_interrupt_while_a_stage_imports_is_one_line(stage, tmp_path):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, stage], env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr.startswith("error: interrupted")
    assert done.stderr.count("\n") == 1
