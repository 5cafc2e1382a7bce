"""Choose the weights to keep: score every weight of a model and keep the highest in each group of the pattern."""

from prunelib.runtime.console import one_line

with one_line():  # an interrupt of the imports, which take seconds
    import torch

    from prunelib.calibration.artifact import Calibration
    from prunelib.cell import Cell
    from prunelib.masks.packed import write_masks
    from prunelib.params import Params
    from prunelib.pruning.warmstart import warmstart_masks
    from prunelib.runtime.machine import machine
    from prunelib.sources.provenance import model_identity
    from prunelib.workflow import identities, paths, stage


def choose(params: Params, model: str, seed: int, pattern: str, warmstart: str) -> None:
    """Write the masks of one warm start."""
    cell = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart)
    folder = paths.model_folder(model)
    calibration = Calibration.open(paths.calibration_folder(cell), model_identity(folder))
    device = torch.device(machine().device)
    masks = warmstart_masks(folder, calibration, params.patterns[pattern], params.warmstarts[warmstart], device)
    write_masks(paths.warmstart_file(cell), masks, {**calibration.provenance, **identities.methods(params, cell)})


if __name__ == "__main__":
    stage.run(choose)
