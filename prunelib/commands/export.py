"""Write the pruned model of a cell as a normal Hugging Face folder, loadable with transformers."""

from pathlib import Path

from prunelib import workflow
from prunelib.export import export_model
from prunelib.layers import read_index
from prunelib.masks import read_masks
from prunelib.params import Params
from prunelib.results import Cell


def export(params: Params, model: str, pattern: str, warmstart: str, refiner: str, to: Path) -> None:
    """Write the folder ``to``, which must not exist or be empty."""
    cell = Cell(model=model, pattern=pattern, warmstart=warmstart, refiner=refiner)
    folder = workflow.model_folder(model)
    made_from = workflow.made_from(params, cell)
    index = read_index(workflow.calibration_folder(model) / "layers.json", made_from["model"])
    masks = read_masks(workflow.refined_file(cell), made_from)
    export_model(folder, to, index, masks, {**made_from, "cell": cell.model_dump()})


if __name__ == "__main__":
    workflow.run(export)
