"""Refine the masks of a warm start, block by block, from the Gram matrices."""

import torch

from prunelib import workflow
from prunelib.calibration import Calibration
from prunelib.cell import Cell
from prunelib.chains import steps_of
from prunelib.machine import machine
from prunelib.masks import read_masks
from prunelib.params import Params
from prunelib.progress import meter
from prunelib.pruned import together, write_pruned
from prunelib.refinement import refine_blocks
from prunelib.results import Timing, write_layers, write_record
from prunelib.resume import resumable
from prunelib.sources.provenance import model_identity
from prunelib.store import sha256_file


def refine(params: Params, model: str, seed: int, pattern: str, warmstart: str, refiner: str) -> None:
    """Write the refined masks of one cell, the figures of its layers, and what it cost."""
    cell = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart, refiner=refiner)
    start = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart)
    folder, settings = workflow.model_folder(model), params.refiners[refiner]
    calibration = Calibration.open(workflow.calibration_folder(cell), model_identity(folder))
    provenance = {**calibration.provenance, **workflow.methods(params, cell)}
    start_file = workflow.warmstart_file(start)
    masks = read_masks(start_file, {**calibration.provenance, **workflow.methods(params, start)})
    rows = sum(layer.rows for layer in calibration.index.layers) * len(steps_of(settings))
    with (
        resumable(f"refine-{cell.full_name}", {**provenance, "start": sha256_file(start_file)}) as parts,
        meter(f"refine {cell.name}", rows, "rows") as bar,
    ):
        layerwise = (folder, calibration, masks, params.patterns[pattern], settings, bar)
        blocks = list(refine_blocks(*layerwise, torch.device(machine().refining_device), parts))
        write_pruned(workflow.refined_folder(cell), together([block.pruned for block in blocks]), provenance)
        write_layers(workflow.layers_file(cell), [record for block in blocks for record in block.records])
        step_seconds = [sum(seconds) for seconds in zip(*(block.step_seconds for block in blocks), strict=True)]
        write_record(workflow.timing_file(cell), Timing(step_seconds=step_seconds, peak_bytes=workflow.peak_memory()))


if __name__ == "__main__":
    workflow.run(refine)
