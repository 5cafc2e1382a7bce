"""The command line as a whole: help, exit statuses, errors in one line."""

import re
import subprocess
import sys

import pytest
import typer.main
from commands import prunelib

import prunelib as library
from prunelib.cli import methods
from prunelib.cli.app import app

COMMANDS = sorted(typer.main.get_command(app).commands)


def test_help_names_every_command_and_each_shows_its_options(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = prunelib("--help").stdout
    assert all(re.search(rf"\b{name}\b", shown) for name in COMMANDS)
    for name in COMMANDS:
        done = prunelib(name, "--help")
        assert done.exit_code == 0
        if name != "methods":
            assert f"prunelib {name}" in done.stdout.split("Options")[0].replace("Usage: prunelib", "")


def test_without_a_command_it_shows_the_help():
    done = prunelib()
    assert done.exit_code == 2
    assert "prune" in done.output


def test_the_version_is_that_of_the_package():
    assert prunelib("--version").stdout == f"prunelib {library.__version__}\n"


def test_an_interrupt_ends_with_130(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(methods, "table", interrupted)
    done = prunelib("methods")
    assert done.exit_code == 130
    assert done.stderr.count("\n") == 1


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'dvc'", name="dvc")

    monkeypatch.setattr(methods, "table", missing)
    done = prunelib("methods")
    assert done.exit_code == 2
    assert "dvc" in done.stderr
    assert "'.[workflow" in done.stderr


@pytest.mark.parametrize("words", [("--help",), ("prune", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(words):
    code = (
        "import runpy, sys; sys.argv = ['prunelib', *sys.argv[1:]]\n"
        "try: runpy.run_module('prunelib', run_name='__main__')\n"
        "except SystemExit: print(sorted({'torch', 'transformers', 'numpy', 'dvc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], text=True, capture_output=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_completion_is_offered_for_the_shell():
    environment = {"_PRUNELIB_COMPLETE": "complete_bash", "COMP_WORDS": "prunelib pru", "COMP_CWORD": "1"}
    words = [sys.executable, "-m", "prunelib"]
    done = subprocess.run(words, text=True, capture_output=True, check=False, env={**environment, "PATH": ""})
    assert done.stdout.split() == ["prune"]
