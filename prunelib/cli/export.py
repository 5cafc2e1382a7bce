"""Write the pruned model of a cell as a normal Hugging Face folder that transformers can load."""

import warnings
from pathlib import Path

from prunelib.cell import Cell
from prunelib.errors import ArtifactError
from prunelib.export.card import model_card
from prunelib.export.folder import check_groups, export_model
from prunelib.export.origin import origin_of
from prunelib.masks.checks import check_counts
from prunelib.masks.pruned import read_pruned
from prunelib.model.layers import read_index
from prunelib.params import Params, load_params
from prunelib.records import CellResult, read_cell
from prunelib.runtime.atomic import require_new
from prunelib.workflow import identities, paths, stage


def export(cell: Cell, to: Path) -> None:
    """Write the pruned model of a cell to the folder ``to``, which must be new or empty.

    Raises
    ------
    PruneError
        If params.yaml is invalid or lacks a name, an artifact is missing, or the folder is not empty.
    """
    to, params = require_new(to), load_params()
    stage.check_names(params, cell.model_dump())
    model = cell.model
    folder, chosen = paths.model_folder(model), params.patterns[str(cell.pattern)]
    made_from = identities.made_from(params, cell)
    index = read_index(paths.calibration_folder(cell) / "layers.json", made_from["model"])
    pruned = read_pruned(paths.refined_folder(cell), made_from)
    check_counts(pruned.masks, chosen)
    source = params.models[model]
    origin = origin_of(folder, source.base_model, source.license)
    card = model_card(model, made_from, _figures(params, Cell(model=model)), _figures(params, cell), origin)
    export_model(folder, to, index, pruned, {**made_from, "cell": cell.model_dump()}, card)
    if chosen.column_groups:
        print(check_groups(to, index.layers, chosen))  # noqa: T201 - output for the user


def _figures(params: Params, cell: Cell) -> CellResult | None:
    """Return a cell's figures; None, with a warning, if there are none of its current model, masks and settings."""
    try:
        return read_cell(paths.result_file(cell), identities.evaluated(params, cell))[0]
    except ArtifactError as error:
        warnings.warn(f"the model card has no figures of {cell.name}: {error}", stacklevel=2)
        return None
