"""Make the cells of a comparison that are not finished, and put all in one report, reports/NAME.

Each cell is a ``dvc repro`` in a copy of the project under scratch/, which shares the project's DVC cache: params.yaml
and the results of the project's own grid are unchanged. As soon as a cell is finished, its records are written to
reports/NAME/cells, for git: a comparison that was stopped goes on from them in any clone, and a finished one needs
nothing else.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dvc.dvcfile import LOCK_FILE, Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo
from ruamel.yaml import YAML

from prunelib.cell import Cell
from prunelib.cell_settings import CellSettings
from prunelib.cli.processes import ended_by_sigterm, search_path
from prunelib.errors import ParamsError, StageError
from prunelib.params import REPLACED, Params, known_name, load_params
from prunelib.reporting import PAGE, write_report
from prunelib.reporting.collect import collect_compared, compared_settings
from prunelib.reporting.finished import FinishedCell, FinishedCells, code_of_stages, finished_in
from prunelib.runtime.progress import note
from prunelib.runtime.resume import SCRATCH, alone
from prunelib.sources.provenance import Source
from prunelib.warmstarts.given import GivenMasks
from prunelib.workflow import paths
from prunelib.workflow.own_folders import require_sources_elsewhere
from prunelib.workflow.own_library import require_own_library

_PROJECT = ("dvc.yaml", "params.yaml", ".dvcignore", "stages", "prunelib")
Wanted = Mapping[Cell, tuple[Params, CellSettings]]
"""The cells of a comparison, with the params of their grid and their settings."""


def compare(comparison: str, *, renew: bool = False) -> None:
    """Make the cells of a comparison that are not finished, one after another, and write one report of all.

    Parameters
    ----------
    renew
        Make those again, too, that other code has made.

    Raises
    ------
    PruneError
        If params.yaml is invalid or has no such comparison, a stage fails, a finished cell's file is damaged, or the
        library that runs is not the project's.
    """
    require_own_library()
    params = load_params()
    require_sources_elsewhere(params)
    known_name("comparison", comparison, params.comparisons)
    for grid in params.compared(comparison):  # with a source of tasks of its own
        require_sources_elsewhere(grid)
    project, name = Path.cwd(), f"compare-{comparison}"
    with alone(name):
        cells, wanted = FinishedCells(paths.cells_folder(comparison)), compared_settings(params, comparison)
        found = cells.find({cell: settings for cell, (_, settings) in wanted.items()})
        cells.move_to_current_names(found)
        code = code_of_stages(project)
        by_others = [cell for cell, finished in found.items() if not finished.code.items() <= code.items()]
        left = {cell: wanted[cell] for cell in wanted if cell not in found or (renew and cell in by_others)}
        _say(comparison, cells, wanted, left, by_others)
        if left:
            for finished in _run_cells(project, project / SCRATCH / name, params, left):
                cells.add(finished)
                found[finished.result.cell] = finished
        report, _ = collect_compared(params, comparison, found)
        write_report(report, paths.reports_folder(comparison))
    note(f"The report of {len(found)} cells: {paths.reports_folder(comparison) / PAGE}")


def _say(comparison: str, cells: FinishedCells, wanted: Wanted, left: Wanted, by_others: list[Cell]) -> None:
    """Say how much of a comparison is finished, and what a cell is made again for."""
    others = f" ({len(by_others)} made by other code)" if by_others else ""
    note(f"{comparison}: {len(wanted) - len(left)} of {len(wanted)} cells are finished{others}, {len(left)} are left")
    for cell, (_, settings) in left.items():
        if changes := cells.changes(cell, settings):
            note(f"{cell.full_name}: made again for other settings: {', '.join(changes)}")


def _run_cells(project: Path, copy: Path, params: Params, left: Wanted) -> Iterator[FinishedCell]:
    """Yield the cells that are left as they get finished."""
    own = (project / "params.yaml").read_text(encoding="utf-8")
    _copy_project(project, copy)
    _remove_damaged_lock(copy)
    code, fetched = code_of_stages(copy), set[str]()
    for number, (cell, (grid, settings)) in enumerate(left.items(), start=1):
        _write_changed(own, copy / "params.yaml", params, grid, project)
        local = {name: source for name, source in _sources(grid, cell).items() if source.local_paths()}
        if again := local.keys() - fetched:  # DVC does not see that local files have changed, but the settings do
            _link(project, copy, (path for name in again for path in local[name].local_paths()))
            _run(copy, "dvc", "repro", "--force", *sorted(again))
            fetched |= again
        _run(copy, "dvc", "repro", f"evaluate@{cell.full_name}" if cell.pattern else f"evaluate_dense@{cell.model}")
        yield finished_in(copy, grid, cell, settings, code)
        note(f"{cell.full_name}: finished; {len(left) - number} of {len(left)} cells are left")


def _sources(grid: Params, cell: Cell) -> dict[str, Source]:
    """Return what a cell is made of, by the stage that fetches it."""
    texts: dict[str, Source] = {f"download_text@{text}": grid.texts[text] for text in grid.grid.texts}
    return {f"download_model@{cell.model}": grid.models[cell.model], **texts, "download_tasks": grid.tasks}


def _link(project: Path, copy: Path, files: Iterable[Path]) -> None:
    """Let relative paths of local files lead to the same files in the copy.

    Raises
    ------
    ParamsError
        If one leads out of the project.
    """
    for path in files:
        if path.is_absolute():
            continue
        name = next(iter(path.parts), "..")
        if name == ".." or name in _PROJECT:
            raise ParamsError(f"{path}: a comparison runs in a copy, where this path leads elsewhere; give it in full")
        (copy / name).unlink(missing_ok=True)
        (copy / name).symlink_to(project / name)


def _copy_project(project: Path, copy: Path) -> None:
    """Copy the current code and settings; results of an earlier run are kept."""
    copy.mkdir(parents=True, exist_ok=True)
    for name in _PROJECT:
        if (project / name).is_dir():
            shutil.rmtree(copy / name, ignore_errors=True)
            shutil.copytree(project / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(project / name, copy)
    ready = copy / ".dvc" / "ready"  # written last: a set-up that was killed is made again
    if not ready.is_file():
        shutil.rmtree(copy / ".dvc", ignore_errors=True)
        _run(copy, "dvc", "init", "--no-scm", "--quiet")
        shutil.copy(project / ".dvc" / "config", copy / ".dvc")
        _run(copy, "dvc", "config", "--local", "core.no_scm", "true")
        words = ("dvc", "cache", "dir")
        environment = {**os.environ, "PATH": search_path()}
        cache = subprocess.run(words, cwd=project, env=environment, check=True, capture_output=True, text=True)
        _run(copy, *words, "--local", cache.stdout.strip())
        ready.touch()


def _remove_damaged_lock(copy: Path) -> None:
    """Remove a dvc.lock that DVC cannot read, as after a kill; DVC's cache has the finished stages."""
    with Repo(str(copy)) as repo:
        try:
            Lockfile(repo, str(copy / LOCK_FILE)).load()
        except DvcException:
            (copy / LOCK_FILE).unlink(missing_ok=True)


def _write_changed(source: str, target: Path, own: Params, grid: Params, project: Path) -> None:
    """Write params.yaml with only the sections replaced in which the grid differs: DVC compares their values.

    Paths of given masks are those from the project's folder.
    """
    yaml = YAML()
    raw = yaml.load(source)
    for section in ("grid", *REPLACED):
        if getattr(grid, section) != getattr(own, section):
            raw[section] = getattr(grid, section).model_dump(mode="json")
    for name, settings in grid.warmstarts.items():
        if isinstance(settings, GivenMasks):
            raw["warmstarts"][name]["path"] = str(project / settings.path)
    with target.open("w", encoding="utf-8") as stream:
        yaml.dump(raw, stream)


def _run(folder: Path, *words: str) -> None:
    environment = {**os.environ, "PATH": search_path(), "PYTHONPATH": str(folder)}
    with ended_by_sigterm():
        status = subprocess.run(words, cwd=folder, env=environment, check=False).returncode
    if status:
        raise StageError(f"{' '.join(words)} failed in {folder}; finished stages are kept: rerun to continue")
