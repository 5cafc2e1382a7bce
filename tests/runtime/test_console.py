"""Every fault of a user or of the system is one line."""

import pytest

from prunelib.errors import ParamsError
from prunelib.runtime.console import one_line


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


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), one_line():
        raise ZeroDivisionError
