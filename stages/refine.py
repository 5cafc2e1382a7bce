"""Refine the masks of a warm start, layer by layer, from the Gram matrices."""

import torch

from prunelib import workflow
from prunelib.calibration import Calibration
from prunelib.cell import Cell
from prunelib.chains import steps_of
from prunelib.machine import machine
from prunelib.masks import read_masks
from prunelib.params import Params
from prunelib.progress import meter
from prunelib.pruned import Pruned, write_pruned
from prunelib.refinement import refine_layers
from prunelib.results import Timing, write_layers, write_record
from prunelib.sources.provenance import model_identity


def refine(params: Params, model: str, seed: int, pattern: str, warmstart: str, refiner: str) -> None:
    """Write the refined masks of one cell, the figures of its layers, and what it cost."""
    cell = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart, refiner=refiner)
    start = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart)
    folder, settings = workflow.model_folder(model), params.refiners[refiner]
    calibration = Calibration.open(workflow.calibration_folder(cell), model_identity(folder))
    layers = calibration.index.layers
    masks = read_masks(workflow.warmstart_file(start), {**calibration.provenance, **workflow.methods(params, start)})
    with meter(f"refine {cell.name}", sum(layer.rows for layer in layers) * len(steps_of(settings)), "rows") as bar:
        device = torch.device(machine().refining_device)
        refined = list(refine_layers(folder, calibration, masks, params.patterns[pattern], settings, bar, device))
    pruned = Pruned(
        masks={layer.name: result.mask for layer, result in zip(layers, refined, strict=True)},
        weights={
            layer.name: result.weight
            for layer, result in zip(layers, refined, strict=True)
            if result.weight is not None
        },
    )
    write_pruned(workflow.refined_folder(cell), pruned, {**calibration.provenance, **workflow.methods(params, cell)})
    write_layers(workflow.layers_file(cell), [result.record for result in refined])
    step_seconds = [sum(seconds) for seconds in zip(*(result.step_seconds for result in refined), strict=True)]
    write_record(workflow.timing_file(cell), Timing(step_seconds=step_seconds, peak_bytes=workflow.peak_memory()))


if __name__ == "__main__":
    workflow.run(refine)
