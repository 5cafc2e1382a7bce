"""What the grid of params.yaml asks of one model."""

from fractions import Fraction

from prunelib import refiners
from prunelib.masks.patterns import NOfM, Pattern
from prunelib.params import Params
from prunelib.planning.needs import Workload
from prunelib.pruning import registry
from prunelib.pruning.chains import steps_of


def workload(params: Params, model: str) -> Workload:
    """What runs for one of the models, whether the grid names it or not."""
    grid, calibration, perplexity = params.grid, params.calibration, params.evaluation.perplexity
    kept = [_kept(params.patterns[pattern]) for pattern in grid.patterns]
    moves = [
        any(registry.about(refiners, step).moves_weights for step in steps_of(params.refiners[refiner]))
        for refiner in grid.refiners
    ]
    drawn = len(grid.seeds) * len(grid.warmstarts)
    return Workload(
        seeds=len(grid.seeds),
        starts=drawn * len(kept),
        cells=tuple((share, moved) for share in kept for moved in moves) * drawn,
        gram_sets=2 if calibration.held_out_samples else 1,
        shards=calibration.shards,
        calibration_tokens=(calibration.samples + calibration.held_out_samples) * calibration.length,
        calibration_batch=calibration.batch * calibration.length,
        evaluation_tokens=len(grid.texts) * perplexity.tokens,
        evaluation_batch=perplexity.batch * perplexity.length,
        dtype=params.models[model].dtype,
    )


def _kept(pattern: Pattern) -> Fraction:
    """The share of weights that a pattern keeps."""
    if isinstance(pattern, NOfM):
        return Fraction(pattern.keep, pattern.group)
    return 1 - Fraction(str(pattern.sparsity))
