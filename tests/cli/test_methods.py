"""The README's table of methods is what the methods say of themselves."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from commands import prunelib

from prunelib import block_refiners, refiners, warmstarts
from prunelib.cli import methods
from prunelib.errors import ArtifactError
from prunelib.methods import registry

ROOT = Path(__file__).parents[2]


def test_the_readme_agrees_with_the_methods():
    shown = methods.shown_in((ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown == methods.table(), "README.md is out of date: run `prunelib methods --write`"


def test_every_method_has_a_row_with_as_many_entries():
    heading, _, *rows = methods.table().splitlines()
    names = [name for kind in (warmstarts, refiners, block_refiners) for name in registry.methods(kind)]
    assert [re.search(r"`(\w+)`", row).group(1) for row in rows] == names
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == heading.count("|")


def test_a_row_says_what_a_method_supports_and_moves(monkeypatch):
    stated = {"summary": "|w| or less", "source": "me", "updates_weights": True}
    stated["supports"] = lambda pattern: not pattern.spans_rows
    monkeypatch.setattr("prunelib.refiners.none.METHOD", replace(registry.methods(refiners)["none"], **stated))
    assert "`none` | \\|w\\| or less | `per_row`, `n_of_m` | updated | me |" in methods.table()


def test_the_command_prints_the_table():
    assert prunelib("methods").stdout == methods.table()


def test_writing_changes_only_what_stands_between_the_markers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{methods.START}old\n{methods.END}\nafter")
    assert prunelib("methods", "--write").exit_code == 0
    assert readme.read_text() == f"before\n{methods.START}{methods.table()}{methods.END}\nafter"


@pytest.mark.parametrize(
    "text", ["", methods.START, methods.END, methods.END + methods.START, 2 * (methods.START + methods.END)]
)
def test_a_readme_without_its_markers_is_refused_and_left_alone(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(ArtifactError, match=r"README\.md: expected <!-- methods -->"):
        methods.write()
    done = prunelib("methods", "--write")
    assert done.exit_code == 2
    assert "error: README.md: expected" in done.stderr
    assert (tmp_path / "README.md").read_text() == text


def test_a_missing_readme_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = prunelib("methods", "--write")
    assert done.exit_code == 2
    assert "No such file" in done.stderr
