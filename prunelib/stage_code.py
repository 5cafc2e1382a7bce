"""The code that decides what each stage computes, written by the stage ``check``: the others depend on it.

DVC then reruns a stage when a module changes that its script reaches through imports, and not for a comment, nor for a
module that decides no number.
"""

from pathlib import Path

import prunelib
from prunelib.runtime import hashing
from prunelib.runtime.code import files_of, read_code

STAGES = ("download", "calibrate", "warmstart", "refine", "evaluate", "report")
"""The names of the scripts; a script may run as several stages of dvc.yaml."""

_FRAME = (  # modules that decide no number: a change in them must not rerun a day of calibration
    "calibration/side_stream.py",  # when inputs are read
    "cell.py",
    "cell_settings.py",  # which finished cells of a comparison are its own
    "errors.py",
    "kernels/cpu_cache.py",  # where compiled code is kept
    "methods/registry.py",
    "methods/workspace.py",
    "model/fit.py",  # refuses to begin, or changes nothing
    "params.py",
    "planning/checks.py",  # the same
    "pruning/warm_up.py",
    "runtime/atomic.py",
    "runtime/code.py",
    "runtime/compute.py",
    "runtime/console.py",
    "runtime/hashing.py",
    "runtime/load.py",
    "runtime/machine.py",
    "runtime/prefetch.py",
    "runtime/progress.py",
    "runtime/ray_backend.py",
    "runtime/resume.py",
    "runtime/store.py",
    "runtime/tasks.py",  # where tasks run
    "settings.py",
    "sources/block_counts.py",  # refuses to begin, or changes nothing
    "stage_code.py",
    "workflow/__init__.py",
    "workflow/identities.py",
    "workflow/own_folders.py",
    "workflow/own_library.py",
    "workflow/paths.py",
    "workflow/stage.py",
)
_READ_ONLY = ("sources/documents.py", "sources/provenance.py")
"""Modules that write the outputs of ``download``; the other stages only read through them."""


def code_of(stage: str, project: Path | None = None) -> str:
    """Return the identity of the code of a stage: one hash of :func:`files_that_decide`."""
    return hashing.sha256_json(files_that_decide(stage, project))


def files_that_decide(stage: str, project: Path | None = None) -> dict[str, str]:
    """Return the files that decide what a stage computes, and the identity of each, sorted by path.

    Parameters
    ----------
    stage
        One of :data:`STAGES`.
    project
        The folder with the code; None: the working directory, with the library that runs.
    """
    package = project / "prunelib" if project else Path(prunelib.__file__).parent
    passed_over = {package / name for name in (*_FRAME, *(() if stage == "download" else _READ_ONLY))}
    script = (project or Path()) / "stages" / f"{stage}.py"
    found, ahead = dict[str, str](), [script]
    while ahead:
        file = ahead.pop()
        path = f"stages/{file.name}" if file == script else file.relative_to(package.parent).as_posix()
        if path not in found:
            code = hashing.cached(read_code, file)
            found[path] = code.identity
            ahead += {each for name in code.imported for each in files_of(name, package)} - passed_over
    return dict(sorted(found.items()))
