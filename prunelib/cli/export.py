"""Write the pruned model of a cell as a normal Hugging Face folder that transformers can load."""

from pathlib import Path

from prunelib import workflow
from prunelib.cell import Cell
from prunelib.evaluation.pruned import mean_errors
from prunelib.export.card import model_card
from prunelib.export.folder import check_groups, export_model
from prunelib.export.origin import origin_of
from prunelib.masks.pruned import read_pruned
from prunelib.model.layers import read_index
from prunelib.params import Params
from prunelib.results import CellResult, read_cell, read_layers


def export(params: Params, model: str, seed: int, pattern: str, warmstart: str, refiner: str, to: Path) -> None:
    """Write the pruned model to the folder ``to``, which must be new or empty."""
    cell = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart, refiner=refiner)
    folder, chosen = workflow.model_folder(model), params.patterns[pattern]
    made_from = workflow.made_from(params, cell)
    index = read_index(workflow.calibration_folder(cell) / "layers.json", made_from["model"])
    pruned = read_pruned(workflow.refined_folder(cell), made_from)
    source = params.models[model]
    origin = origin_of(folder, source.base_model, source.license)
    card = model_card(model, made_from, _figures(Cell(model=model)), _figures(cell), origin)
    export_model(folder, to, index, pruned, {**made_from, "cell": cell.model_dump()}, card)
    if chosen.column_groups:
        print(check_groups(to, index.layers, chosen))  # noqa: T201 - output for the user


def _figures(cell: Cell) -> CellResult | None:
    """Return a cell's evaluation results if they are of its current masks."""
    if not workflow.result_file(cell).is_file():
        return None
    found = read_cell(workflow.result_file(cell))
    if (
        cell.pattern is None
        or found.relative_error == mean_errors(read_layers(workflow.layers_file(cell)))["relative_error"]
    ):
        return found
    return None


def main() -> None:
    """Run the command line."""
    workflow.run(export)


if __name__ == "__main__":
    main()
