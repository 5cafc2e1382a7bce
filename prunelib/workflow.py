"""Shared code of the stage scripts: command line, params, one-line errors, and the path of every artifact."""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from prunelib.calibration.artifact import read_origin
from prunelib.cell import Cell
from prunelib.errors import ParamsError
from prunelib.params import Params, known_name, load_params
from prunelib.runtime.console import one_line
from prunelib.runtime.machine import machine
from prunelib.runtime.resume import SCRATCH
from prunelib.sources.provenance import Source, model_identity, tasks_identity, text_identity

ARTIFACTS = Path("artifacts")
RESULTS = Path("results")
REPORTS = Path("reports")
TASKS = ARTIFACTS / "tasks"


def model_folder(model: str) -> Path:
    """Return the Hugging Face folder of a model."""
    return ARTIFACTS / "models" / model


def text_folder(text: str) -> Path:
    """Return the folder of a text's documents, calibration and held-out."""
    return ARTIFACTS / "texts" / text


def calibration_folder(cell: Cell) -> Path:
    """Return the folder of the frozen tokens, the layer index and the Gram matrices of a model and a seed."""
    return ARTIFACTS / "calibration" / _drawn(cell)


def warmstart_file(cell: Cell) -> Path:
    """Return the file of a warm start's masks."""
    return ARTIFACTS / "warmstarts" / _drawn(cell) / f"{cell.pattern}-{cell.warmstart}.safetensors"


def refined_folder(cell: Cell) -> Path:
    """Return the folder of a cell's refined masks, and of its kept weights if they were updated."""
    return ARTIFACTS / "refined" / _drawn(cell) / cell.name


def result_file(cell: Cell) -> Path:
    """Return the file of a cell's figures."""
    return RESULTS / "cells" / _drawn(cell) / f"{cell.name}.json"


def layers_file(cell: Cell) -> Path:
    """Return the file of the figures of a cell's layers."""
    return RESULTS / "layers" / _drawn(cell) / f"{cell.name}.json"


def timing_file(cell: Cell) -> Path:
    """Return the file of a refinement's time and memory; DVC does not track it, so that timing never causes a rerun."""
    return RESULTS / "timing" / _drawn(cell) / f"{cell.name}.json"


def code_file(stage: str) -> Path:
    """Return the file of the code that decides what a stage computes."""
    return ARTIFACTS / "code" / f"{stage}.json"


def reports_folder(comparison: str | None = None) -> Path:
    """Return the folder of the report of the grid, or of a comparison."""
    return REPORTS / comparison if comparison else REPORTS


def cells_folder(comparison: str) -> Path:
    """Return the folder of the finished cells of a comparison."""
    return reports_folder(comparison) / "cells"


def remove_other_results(params: Params) -> None:
    """Remove the records of cells that are not in the grid; DVC's cache holds them until ``dvc gc``.

    The stage report depends on the folders of records, which then are the same in every clone. A folder that a link
    brings in from elsewhere is not of this project alone: nothing is removed there.
    """
    own = Path.cwd().resolve() / RESULTS
    cells = params.grid.cells()
    kept = {file(cell) for cell in cells for file in (result_file, layers_file)}
    for folder in ("cells", "layers"):
        for path in (RESULTS / folder).rglob("*.json"):
            if path not in kept and path.parent.resolve().is_relative_to(own):
                path.unlink()


def _drawn(cell: Cell) -> Path:
    """Return ``smollm2_135m/0``, the model and the seed of the calibration draw; the dense model has no seed."""
    return Path(cell.model) if cell.seed is None else Path(cell.model) / str(cell.seed)


def methods(params: Params, cell: Cell) -> dict[str, Any]:
    """Return the settings that made a cell's masks, for their provenance; their names in params.yaml are left out."""
    named = {
        "pattern": params.patterns[cell.pattern] if cell.pattern else None,
        "warmstart": params.warmstarts[cell.warmstart] if cell.warmstart else None,
        "refiner": params.refiners[cell.refiner] if cell.refiner else None,
    }
    return {key: settings.model_dump(mode="json") for key, settings in named.items() if settings}


def made_from(params: Params, cell: Cell) -> dict[str, Any]:
    """Return the expected provenance of a cell's refined masks: the model, its calibration and the methods.

    Raises
    ------
    ArtifactError
        If the model or its calibration tokens are missing or damaged.
    """
    origin = read_origin(calibration_folder(cell))
    return {**origin, "model": model_identity(model_folder(cell.model)), **methods(params, cell)}


def evaluated(params: Params, cell: Cell) -> dict[str, Any]:
    """Return everything that determines the figures of a cell, or of the dense model.

    Raises
    ------
    ArtifactError
        If the model, the calibration tokens, a text or the task data are missing or damaged.
    """
    origin = made_from(params, cell) if cell.pattern else {"model": model_identity(model_folder(cell.model))}
    items = task_data(params)
    return {
        **origin,
        **evaluation_of(params, cell.model),
        "texts": {text: text_identity(text_folder(text)) for text in params.grid.texts},
        "items": items and tasks_identity(items),
    }


def evaluation_of(params: Params, model: str) -> dict[str, Any]:
    """Return the settings that determine the figures of a model: part of :func:`evaluated`."""
    source = params.models[model]
    running = {"dtype": source.dtype, "bos_per_window": source.bos_per_window}
    return {**running, "evaluation": params.evaluation.model_dump(mode="json")}


def task_data(params: Params) -> Path | None:
    """Return the folder of the tasks' items; None if lm-eval fetches them from the hub."""
    return None if params.tasks.source == "hub" else TASKS


def require_sources_elsewhere(params: Params) -> None:
    """Check that no local model, text or task item lies in a folder that stages write to, and DVC removes.

    Raises
    ------
    ParamsError
        If one does; the message gives its key and path.
    """
    sources: dict[str, Source] = {f"models.{name}": source for name, source in params.models.items()}
    sources |= {f"texts.{name}": source for name, source in params.texts.items()}
    for key, source in {**sources, "tasks": params.tasks}.items():
        for path in source.local_paths():
            for folder in (ARTIFACTS, RESULTS, REPORTS, SCRATCH):
                if path.resolve().is_relative_to(folder.resolve()):
                    raise ParamsError(f"{key}: {path} lies in {folder}/, which stages write to; move it elsewhere")


def run(stage: Callable[..., None]) -> None:
    """Run a stage's function with the params and the options from the command line.

    The function's first parameter receives the :class:`Params`. Each further one is an ``--option``, required unless
    it has a default: a path or an integer if annotated as one, else a name from the section of params.yaml named by
    its plural (``model``: models). A user error prints one line and exits with status 2.
    """
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[stage.__module__]), allow_abbrev=False)
    options = list(inspect.signature(stage).parameters.values())[1:]
    for option in options:
        parser.add_argument(f"--{option.name}", required=option.default is option.empty, **_kind(option))
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    arguments = vars(parser.parse_args())
    with one_line(show_traceback=arguments.pop("traceback")):
        params = load_params()
        torch.set_num_threads(machine().threads)
        check_names(params, arguments)
        stage(params, **arguments)


def check_names(params: Params, options: Mapping[str, Any]) -> None:
    """Check that each option that is text is a name in the section of its plural, as :func:`run` has them.

    Raises
    ------
    ParamsError
        If one is not; the message gives the option, the name and the known names.
    """
    for name, value in options.items():
        if isinstance(value, str):
            known_name(f"--{name}", value, getattr(params, f"{name}s"))


def _kind(option: inspect.Parameter) -> dict[str, Any]:
    if option.annotation is Path:
        return {"type": Path, "metavar": "PATH"}
    if option.annotation in (int, int | None):
        return {"type": int, "metavar": "N", "help": f"as in grid.{option.name}s of params.yaml"}
    return {"metavar": "NAME", "help": f"a name under {option.name}s in params.yaml"}
