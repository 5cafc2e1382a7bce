"""The workload of one model in the grids of params.yaml."""

from collections.abc import Sequence
from itertools import product

from prunelib import block_refiners, refiners
from prunelib.methods import registry
from prunelib.methods.contract import MethodSettings, Refiner
from prunelib.params import Params
from prunelib.planning.needs import Workload
from prunelib.pruning.chains import block_step, layer_steps, updates_weights


def workload(runs: Sequence[Params], model: str) -> Workload:
    """Return the workload of one model, even if no grid names it; cells that several runs share count once.

    Parameters
    ----------
    runs
        Params that differ only in their grid: one, or those of a comparison (:meth:`Params.compared`).
    """
    params = runs[0]
    calibration, perplexity = params.calibration, params.evaluation.perplexity
    grids = [run.grid for run in runs]
    cells = dict.fromkeys(
        cell for grid in grids for cell in product(grid.seeds, grid.patterns, grid.warmstarts, grid.refiners)
    )
    used = {refiner for *_, refiner in cells}
    last = [step for refiner in used if (step := block_step(params.refiners[refiner]))]
    return Workload(
        seeds=len({seed for seed, *_ in cells}),
        starts=len({cell[:3] for cell in cells}),
        cells=tuple(
            (
                params.patterns[pattern].kept_share,
                updates_weights(params.refiners[refiner]) or calibration.dense_target > 0,
            )
            for _, pattern, _, refiner in cells
        ),
        workspaces=tuple(dict.fromkeys(step.workspace for refiner in sorted(used) for step in _steps(params, refiner))),
        block_weight_bytes=max((registry.block_refiner(block_refiners, step).weight_bytes for step in last), default=0),
        block_gradients=max((step.gradients(calibration.samples) for step in last), default=0),
        gram_sets=calibration.gram_sets,
        inputs=calibration.inputs,
        streams=calibration.streams,
        shards=calibration.shards,
        calibration_tokens=(calibration.samples + calibration.held_out_samples) * calibration.length,
        calibration_batch=calibration.batch * calibration.length,
        calibration_window=calibration.length,
        evaluation_tokens=len(params.grid.texts) * perplexity.tokens,
        evaluation_batch=perplexity.batch * perplexity.length,
        dtype=params.models[model].dtype,
    )


def _steps(params: Params, refiner: str) -> list[Refiner[MethodSettings]]:
    """Return the methods of a refiner's steps."""
    return [registry.refiner(refiners, step) for step in layer_steps(params.refiners[refiner])]
