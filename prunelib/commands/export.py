"""Write the pruned model of a cell as a normal Hugging Face folder, loadable with transformers."""

from pathlib import Path

from prunelib import workflow
from prunelib.cell import Cell
from prunelib.export import export_model
from prunelib.layers import read_index
from prunelib.params import Params
from prunelib.pruned import read_pruned


def export(params: Params, model: str, seed: int, pattern: str, warmstart: str, refiner: str, to: Path) -> None:
    """Write the folder ``to``, which must not exist or be empty."""
    cell = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart, refiner=refiner)
    folder = workflow.model_folder(model)
    made_from = workflow.made_from(params, cell)
    index = read_index(workflow.calibration_folder(cell) / "layers.json", made_from["model"])
    pruned = read_pruned(workflow.refined_folder(cell), made_from)
    export_model(folder, to, index, pruned, {**made_from, "cell": cell.model_dump()})


if __name__ == "__main__":
    workflow.run(export)
