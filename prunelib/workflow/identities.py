"""What decides the masks and the figures of a cell, for their provenance."""

from typing import Any

from prunelib.calibration.artifact import read_origin
from prunelib.cell import Cell
from prunelib.params import Params
from prunelib.sources.provenance import model_identity, tasks_identity, text_identity
from prunelib.workflow.paths import calibration_folder, model_folder, task_data, text_folder


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
