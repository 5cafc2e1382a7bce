"""Run every stage of params.yaml that is not up to date, and print the main figures.

This is ``dvc repro`` with numbered stages; for targets and other options use ``dvc repro`` itself.
"""

import argparse
import logging
import os
import sys

from dvc.cli import main as dvc
from dvc.exceptions import DvcException
from dvc.repo import Repo
from rich.console import Console

from prunelib import workflow
from prunelib.cli import search_path
from prunelib.errors import StageError
from prunelib.params import load_params
from prunelib.reporting import PAGE, update_costs
from prunelib.reporting.collect import collect
from prunelib.reporting.terminal import print_tables
from prunelib.runtime.console import one_line

_BEGINNINGS = ("Running stage '%s'", "Stage '%s' ")
"""Beginnings of the one log message that DVC emits per stage: that it runs, is in the cache, or has not changed."""


class StageNumbers(logging.Filter):
    """A log filter that puts ``[7/43]`` before the line with which DVC begins a stage."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self._total, self._begun = total, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Number a record that begins a stage, and accept every record."""
        if str(record.msg).startswith(_BEGINNINGS):
            self._begun += 1
            record.msg = f"[{self._begun}/{self._total}] {record.msg}"
        return True


def main() -> None:
    """Run the command line; a user error prints one line and exits with 2, a failed stage exits with DVC's status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--pull", action="store_true", help="take what is missing from the DVC remote")
    parser.add_argument("--force", action="store_true", help="run every stage, also those that are up to date")
    parser.add_argument("--keep-going", action="store_true", help="run what does not depend on a stage that failed")
    chosen = [f"--{name.replace('_', '-')}" for name, wanted in vars(parser.parse_args()).items() if wanted]
    with one_line():
        load_params()  # report an error in any section before the first stage
        if status := _reproduce(chosen):
            sys.exit(status)
        report, folder = collect(load_params()), workflow.reports_folder()
        update_costs(report, folder)
    print_tables(report, Console())
    print(f"The whole report: {folder / PAGE}")  # noqa: T201 - output for the user


def _reproduce(options: list[str]) -> int:
    """Run ``dvc repro`` in this process with numbered stages, and return its exit status."""
    os.environ["PATH"] = search_path()  # the stages' commands begin with ``python``
    try:
        with Repo() as repo:
            numbers = StageNumbers(len(repo.index.stages))
    except DvcException as error:
        raise StageError(str(error)) from None
    handlers = logging.getLogger("dvc").handlers
    for handler in handlers:
        handler.addFilter(numbers)
    try:
        return int(dvc(["repro", *options]))
    finally:
        for handler in handlers:
            handler.removeFilter(numbers)


if __name__ == "__main__":
    main()
