"""Refine the masks of a warm start, block by block, from the Gram matrices, and then whole blocks if asked for."""

from prunelib.runtime.console import one_line

with one_line():  # an interrupt of the imports, which take seconds
    from prunelib.calibration.artifact import Calibration
    from prunelib.cell import Cell
    from prunelib.masks.pruned import merge_pruned, write_pruned
    from prunelib.model.weights import read_weight
    from prunelib.params import Params
    from prunelib.planning.checks import require_capacity_to_refine
    from prunelib.pruning.refined_blocks import FinishedBlocks, cost_of, reconstructions
    from prunelib.pruning.whole_model import ModelRefinement
    from prunelib.records import Timing, write_layers, write_timing
    from prunelib.runtime.hashing import sha256_file
    from prunelib.runtime.machine import machine
    from prunelib.runtime.progress import meter
    from prunelib.runtime.resume import resumable
    from prunelib.sources.provenance import model_identity
    from prunelib.stage_code import code_of
    from prunelib.workflow import identities, paths, stage


def refine(params: Params, model: str, seed: int, pattern: str, warmstart: str, refiner: str) -> None:
    """Write the refined masks of one cell, the figures of its layers, and the time and memory used."""
    cell = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart, refiner=refiner)
    start = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart)
    folder, refined_folder = paths.model_folder(model), paths.refined_folder(cell)
    calibration = Calibration.open(paths.calibration_folder(cell), model_identity(folder))
    provenance = {**calibration.provenance, **identities.methods(params, cell), "kernels": machine().kernels}
    refinement = ModelRefinement(
        folder=folder,
        dtype=params.models[model].dtype,
        calibration=calibration,
        pattern=params.patterns[pattern],
        warmstart=params.warmstarts[warmstart],
        refiner=params.refiners[refiner],
        warmstart_file=paths.warmstart_file(start),
        warmstart_provenance={**calibration.provenance, **identities.methods(params, start)},
    )
    refinement.check()
    weight_bytes = read_weight(folder, calibration.index.layers[0]).element_size()
    require_capacity_to_refine(
        refined_folder, calibration, refinement.refiner, weight_bytes, machine().refining_device, machine().threads
    )
    refinement.warm_up(machine())
    decides = {**provenance, **refinement.decided_by(), "code": code_of("refine")}
    with resumable(f"refine-{cell.full_name}", decides) as scratch:
        with meter(f"refine {cell.name}", refinement.rows, "rows") as bar:
            blocks = refinement.run(FinishedBlocks(scratch, provenance), machine(), bar)
        gradients, finished = refinement.gradients, FinishedBlocks(scratch / "reconstructed", provenance)
        with meter(f"reconstruct {cell.name}", gradients, "windows through a block", quiet=not gradients) as bar:
            blocks = refinement.reconstruct(blocks, finished, machine(), bar)
        write_pruned(refined_folder, merge_pruned([block.pruned for block in blocks]), provenance)
        records, layers = [layer for block in blocks for layer in block.records], paths.layers_file(cell)
        write_layers(layers, records, provenance, reconstructions(blocks))
        cost = cost_of(blocks)._asdict()
        timing = Timing(**cost, layers_sha256=sha256_file(layers), machine=machine().refining_name)
        write_timing(paths.timing_file(cell), timing)


if __name__ == "__main__":
    stage.run(refine)
