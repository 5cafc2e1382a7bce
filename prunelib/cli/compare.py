"""Run every grid of a comparison and put all its cells in one report, reports/NAME.

Each grid is a ``dvc repro`` in a copy of the project under scratch/, which shares the project's DVC cache: params.yaml
and the results of the project's own grid are unchanged, earlier results are reused, and a stopped run resumes where it
was.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from prunelib import workflow
from prunelib.cli import search_path
from prunelib.errors import StageError
from prunelib.params import REPLACED, Params, known_name, load_params
from prunelib.runtime.resume import SCRATCH, alone

_PROJECT = ("dvc.yaml", "params.yaml", ".dvcignore", "stages", "prunelib")


def compare(comparison: str) -> None:
    """Run the grids of a comparison one after another, and write one report of all.

    Raises
    ------
    PruneError
        If params.yaml is invalid or has no such comparison, or a stage fails.
    """
    params = load_params()
    known_name("comparison", comparison, params.comparisons)
    project, name = Path.cwd(), f"compare-{comparison}"
    copy = project / SCRATCH / name
    with alone(name):
        _copy_project(project, copy)
        for grid in params.compared(comparison):
            _write_changed(project / "params.yaml", copy / "params.yaml", params, grid)
            _run(copy, "dvc", "repro", "evaluate_dense", "evaluate")
        shutil.copy(project / "params.yaml", copy)
        _run(copy, sys.executable, "stages/report.py", "--comparison", comparison)
        target = workflow.reports_folder(comparison)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(copy / target, target)


def _copy_project(project: Path, copy: Path) -> None:
    """Copy the current code and settings; results of an earlier run are kept."""
    copy.mkdir(parents=True, exist_ok=True)
    for name in _PROJECT:
        if (project / name).is_dir():
            shutil.rmtree(copy / name, ignore_errors=True)
            shutil.copytree(project / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(project / name, copy)
    if not (copy / ".dvc").is_dir():
        _run(copy, "dvc", "init", "--no-scm", "--quiet")
        shutil.copy(project / ".dvc" / "config", copy / ".dvc")
        _run(copy, "dvc", "config", "--local", "core.no_scm", "true")
        words = ("dvc", "cache", "dir")
        environment = {**os.environ, "PATH": search_path()}
        cache = subprocess.run(words, cwd=project, env=environment, check=True, capture_output=True, text=True)
        _run(copy, *words, "--local", cache.stdout.strip())


def _write_changed(source: Path, target: Path, own: Params, grid: Params) -> None:
    """Write params.yaml with only the sections replaced in which the grid differs: DVC compares their values."""
    yaml = YAML()
    raw = yaml.load(source.read_text(encoding="utf-8"))
    for section in ("grid", *REPLACED):
        if getattr(grid, section) != getattr(own, section):
            raw[section] = getattr(grid, section).model_dump(mode="json")
    with target.open("w", encoding="utf-8") as stream:
        yaml.dump(raw, stream)


def _run(folder: Path, *words: str) -> None:
    environment = {**os.environ, "PATH": search_path(), "PYTHONPATH": str(folder)}
    if subprocess.run(words, cwd=folder, env=environment, check=False).returncode:
        raise StageError(f"{' '.join(words)} failed in {folder}; finished stages are kept: rerun to continue")
