"""The path of every artifact, record and report, from the name of its cell."""

from pathlib import Path

from prunelib.cell import Cell
from prunelib.params import Params

ARTIFACTS = Path("artifacts")
RESULTS = Path("results")
REPORTS = Path("reports")
TEXTS = ARTIFACTS / "texts"
TASKS = ARTIFACTS / "tasks"


def model_folder(model: str) -> Path:
    """Return the Hugging Face folder of a model."""
    return ARTIFACTS / "models" / model


def text_folder(text: str) -> Path:
    """Return the folder of a text's documents, calibration and held-out."""
    return TEXTS / text


def task_data(params: Params) -> Path | None:
    """Return the folder of the tasks' items; None if lm-eval fetches them from the hub."""
    return None if params.tasks.source == "hub" else TASKS


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


def _drawn(cell: Cell) -> Path:
    """Return ``smollm2_135m/0``, the model and the seed of the calibration draw; the dense model has no seed."""
    return Path(cell.model) if cell.seed is None else Path(cell.model) / str(cell.seed)
