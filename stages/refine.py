"""Refine the masks of a warm start, block by block, from the Gram matrices, and then whole blocks if asked for."""

from functools import partial

from prunelib.runtime.console import one_line

with one_line():  # an interrupt of the imports, which take seconds
    import torch

    from prunelib import workflow
    from prunelib.calibration.artifact import Calibration
    from prunelib.cell import Cell
    from prunelib.masks.pruned import merge_pruned, write_pruned
    from prunelib.model.weights import read_weight
    from prunelib.params import Params
    from prunelib.planning.checks import require_capacity_to_refine
    from prunelib.pruning.chains import block_step, layer_steps
    from prunelib.pruning.refinement import FinishedBlocks, cost_of, reconstructions
    from prunelib.pruning.warm_up import warm_up
    from prunelib.pruning.whole_model import ModelRefinement
    from prunelib.records import Timing, write_layers, write_timing
    from prunelib.runtime.hashing import sha256_file
    from prunelib.runtime.machine import machine
    from prunelib.runtime.progress import meter, note
    from prunelib.runtime.resume import resumable
    from prunelib.sources.provenance import model_identity
    from prunelib.stage_code import code_of


def refine(params: Params, model: str, seed: int, pattern: str, warmstart: str, refiner: str) -> None:
    """Write the refined masks of one cell, the figures of its layers, and the time and memory used."""
    cell = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart, refiner=refiner)
    start = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart)
    folder, settings, dtype = workflow.model_folder(model), params.refiners[refiner], params.models[model].dtype
    calibration = Calibration.open(workflow.calibration_folder(cell), model_identity(folder))
    provenance = {**calibration.provenance, **workflow.methods(params, cell), "kernels": machine().kernels}
    device, chosen = torch.device(machine().refining_device), params.patterns[pattern]
    start_file = workflow.warmstart_file(start)
    made_from = {**calibration.provenance, **workflow.methods(params, start)}
    begin = params.warmstarts[warmstart]
    refinement = ModelRefinement(folder, dtype, calibration, chosen, begin, settings, start_file, made_from)
    refinement.check_start()
    weight_bytes = read_weight(folder, calibration.index.layers[0]).element_size()
    gram_sets = 2 if calibration.settings["held_out_samples"] else 1
    window = calibration.settings["length"]
    refined_folder = workflow.refined_folder(cell)
    require_capacity_to_refine(refined_folder, calibration.index, settings, weight_bytes, gram_sets, window, device)
    widths = {layer.inputs for layer in calibration.index.layers}
    compiling = partial(note, "compiling kernels, once on this machine")
    warm_up(settings, chosen, device, widths, compiling, machine().compute)
    last = block_step(settings)
    gradients = calibration.index.blocks * last.gradients(calibration.settings["samples"]) if last else 0
    rows = sum(layer.rows for layer in calibration.index.layers) * len(layer_steps(settings))
    decided_by = {"calibration": calibration.identity(), "start": sha256_file(start_file)}
    decides = {**provenance, **decided_by, "dtype": dtype, "code": code_of("refine")}
    with resumable(f"refine-{cell.full_name}", decides) as scratch:
        with meter(f"refine {cell.name}", rows, "rows") as bar:
            blocks = refinement.run(FinishedBlocks(scratch, provenance), machine(), bar)
        with meter(f"reconstruct {cell.name}", gradients, "windows through a block", quiet=not gradients) as bar:
            blocks = refinement.reconstruct(
                blocks, FinishedBlocks(scratch / "reconstructed", provenance), machine(), bar
            )
        write_pruned(refined_folder, merge_pruned([block.pruned for block in blocks]), provenance)
        records = [layer for block in blocks for layer in block.records]
        write_layers(workflow.layers_file(cell), records, provenance, reconstructions(blocks))
        cost = cost_of(blocks)._asdict()
        layers_sha256 = sha256_file(workflow.layers_file(cell))
        timing = Timing(**cost, layers_sha256=layers_sha256, machine=machine().refining_name)
        write_timing(workflow.timing_file(cell), timing)


if __name__ == "__main__":
    workflow.run(refine)
