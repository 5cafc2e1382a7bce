import io

import pytest
from rich.console import Console

from prunelib.runtime.progress import Meter, meter, note


def test_without_a_terminal_a_line_for_each_tenth(capsys):
    with meter("refine", 1000, "rows") as bar:
        for _ in range(100):
            bar.advance(10, "error 2 -> 1")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[4].startswith("refine: 500 of 1,000 rows, error 2 -> 1, ")


@pytest.mark.parametrize("text", ["/data/[old]/masks", "[/x]", "[bold]:smile:"])
def test_what_looks_like_markup_is_shown_as_it_is(capsys, text):
    note(text)
    with meter(text, 1, "rows") as bar:
        bar.advance(1, text)
    assert capsys.readouterr().err.count(text) == 3


def test_on_a_terminal_a_bar_with_count_status_and_time_left():
    drawn = io.StringIO()
    bar = Meter("refine", 200, "rows", Console(file=drawn, force_terminal=True, width=160))
    with bar.bar:
        bar.advance(50, "error 2 -> 1")
    shown = drawn.getvalue()
    assert "50/200" in shown
    assert "error 2 -> 1" in shown
    assert "left" in shown
