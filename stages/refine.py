"""Refine the masks of a warm start, layer by layer, from the Gram matrices."""

from prunelib import workflow
from prunelib.calibration import Calibration
from prunelib.masks import read_masks, write_masks
from prunelib.params import Params
from prunelib.progress import meter
from prunelib.refinement import refine_masks
from prunelib.results import Cell, Timing, write_layers, write_record
from prunelib.sources.provenance import model_identity


def refine(params: Params, model: str, pattern: str, warmstart: str, refiner: str) -> None:
    """Write the refined masks of one cell, the figures of its layers, and what it cost."""
    cell = Cell(model=model, pattern=pattern, warmstart=warmstart, refiner=refiner)
    start = Cell(model=model, pattern=pattern, warmstart=warmstart)
    folder = workflow.model_folder(model)
    calibration = Calibration.open(workflow.calibration_folder(model), model_identity(folder))
    masks = read_masks(workflow.warmstart_file(start), {**calibration.provenance, **workflow.methods(params, start)})
    rows = sum(layer.rows for layer in calibration.index.layers)
    with meter(f"refine {cell.name}", rows, "rows") as bar:
        refined, layers, seconds = refine_masks(
            folder, calibration, masks, params.patterns[pattern], params.refiners[refiner], bar
        )
    write_masks(workflow.refined_file(cell), refined, {**calibration.provenance, **workflow.methods(params, cell)})
    write_layers(workflow.layers_file(cell), layers)
    write_record(workflow.timing_file(cell), Timing(seconds=seconds, peak_bytes=workflow.peak_memory()))


if __name__ == "__main__":
    workflow.run(refine)
