"""Run every stage of params.yaml that is not up to date, and print the main figures: ``dvc repro``, numbered."""

import logging
import os
import sys
from collections.abc import Sequence

from dvc.cli import main as dvc
from dvc.dvcfile import LOCK_FILE
from dvc.exceptions import DvcException
from dvc.repo import Repo
from rich.console import Console

from prunelib.cli.processes import ended_by_sigterm, search_path
from prunelib.errors import StageError
from prunelib.params import known_name, load_params
from prunelib.reporting import PAGE, update_costs
from prunelib.reporting.collect import collect
from prunelib.reporting.terminal import print_tables
from prunelib.workflow import paths
from prunelib.workflow.own_library import require_own_library

_BEGINNINGS = ("Running stage '%s'", "Stage '%s' ")
"""Beginnings of the one log message that DVC emits per stage: that it runs, is in the cache, or has not changed."""
_RECOVERY = "after a kill while DVC wrote it, restore it from git, or delete it; finished stages are in DVC's cache"


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


def run(cell: str | None = None, *, pull: bool = False, force: bool = False, keep_going: bool = False) -> None:
    """Run ``dvc repro``, and print the main figures; with a ``cell``, that one's stages alone and no figures.

    Parameters
    ----------
    cell
        The name of its stages: ``smollm2_135m-0-row60-wanda-swaps``.
    pull, force, keep_going
        Options of ``dvc repro``.

    Raises
    ------
    PruneError
        If params.yaml is invalid, the cell is not in the grid, there is no project here, or another library runs.
    SystemExit
        If a stage fails, with DVC's status.
    """
    params = load_params()  # report an error in any section before the first stage
    options = [f"--{name}" for name, wanted in (("pull", pull), ("force", force), ("keep-going", keep_going)) if wanted]
    if cell:
        known_name("--cell", cell, [each.full_name for each in params.grid.cells() if each.pattern])
    if status := reproduce([f"evaluate@{cell}"] if cell else [], options):
        sys.exit(status)
    if cell:
        return
    report, folder = collect(load_params()), paths.reports_folder()
    update_costs(report, folder)
    print_tables(report, Console())
    print(f"The whole report: {folder / PAGE}")  # noqa: T201 - output for the user


def reproduce(targets: Sequence[str] = (), options: Sequence[str] = ()) -> int:
    """Run ``dvc repro`` in this process with numbered stages, and return its exit status.

    Parameters
    ----------
    targets
        Stages that are run, with those they depend on; none: all.

    Raises
    ------
    StageError
        If there is no project here, or the library that runs is not the project's.
    """
    require_own_library()
    os.environ["PATH"] = search_path()  # the stages' commands begin with ``python``
    try:
        with Repo() as repo:
            wanted = {stage for target in targets or (None,) for stage in repo.stage.collect(target, with_deps=True)}
            numbers = StageNumbers(len(wanted))
    except DvcException as error:
        raise StageError(f"{error}; {_RECOVERY}" if LOCK_FILE in str(error) else str(error)) from None
    handlers = logging.getLogger("dvc").handlers
    for handler in handlers:
        handler.addFilter(numbers)
    try:
        with ended_by_sigterm():
            return int(dvc(["repro", *options, *targets]))
    finally:
        for handler in handlers:
            handler.removeFilter(numbers)
