"""Refiners in a row: what each step starts from, what is recorded, and what cannot follow what."""

import pytest
import torch
from pydantic import ValidationError
from strategies import PATTERNS, problem

from prunelib import refiners, sparseswaps
from prunelib.block_refiners.block_reconstruction import BlockReconstruction
from prunelib.errors import ParamsError
from prunelib.methods import registry
from prunelib.methods.contract import NOTHING_ELSE, silent
from prunelib.pruning.chains import Chain, block_step, check_skipped, layer_steps, outcome, run_chain
from prunelib.refiners.dsnot import DSnoT
from prunelib.refiners.sparseswaps import SparseSwaps


def chain(*steps):
    return Chain.model_validate({"chain": list(steps)})


def run(p, settings, progress=silent):
    return run_chain(p.weight, p.gram, p.mask, p.pattern, settings, progress, NOTHING_ELSE)


@pytest.fixture
def layer():
    return problem(3, PATTERNS[2], rows=6, inputs=40, tokens=150)


def test_a_step_alone_is_the_refiner_itself(layer):
    (step,) = run(layer, SparseSwaps())
    torch.testing.assert_close(step.refined.mask, sparseswaps(layer.weight, layer.gram, layer.mask, layer.pattern).mask)
    assert step.method == "sparseswaps"
    assert step.seconds > 0


def test_every_step_starts_from_the_one_before(layer):
    settings = chain({"method": "sparseswaps", "max_swaps": 2}, "sparseswaps", "least_squares")
    first, second, third = (step.refined for step in run(layer, settings))
    torch.testing.assert_close(second.loss_before, first.loss_after)
    assert (second.swaps > 0).any()
    assert torch.equal(third.mask, second.mask)
    assert (third.loss_after < second.loss_after).all()


def test_updated_weights_are_handed_on(layer):
    least_squares, again = (step.refined for step in run(layer, chain("least_squares", "least_squares")))
    torch.testing.assert_close(again.loss_before, least_squares.loss_after)


def test_the_outcome_spans_the_chain(layer):
    steps = run(layer, chain({"method": "sparseswaps", "max_swaps": 2}, "sparseswaps"))
    whole = outcome(steps)
    torch.testing.assert_close(whole.loss_before, steps[0].refined.loss_before)
    torch.testing.assert_close(whole.loss_after, steps[1].refined.loss_after)
    torch.testing.assert_close(whole.swaps, steps[0].refined.swaps + steps[1].refined.swaps)
    assert whole.optimal.all()


def test_the_outcome_has_the_highest_bound_and_all_sweeps(layer):
    settings = chain({"method": "sparsefw", "iterations": 1}, "sparsefw", {"method": "sparsefw", "iterations": 2})
    bounds = [step.refined.bound for step in run(layer, settings)]
    assert bounds[1] > max(bounds[0], bounds[2])
    assert outcome(run(layer, settings)).bound == bounds[1]
    steps = run(layer, chain("sparsefw", {"method": "sparseswaps", "max_swaps": 2}, "sparseswaps"))
    torch.testing.assert_close(outcome(steps).sweeps, steps[1].refined.sweeps + steps[2].refined.sweeps)
    assert (steps[1].refined.sweeps > 0).any()


def test_progress_is_told_about_every_row_once_a_step(layer):
    told = []
    run(layer, chain("sparseswaps", "least_squares"), lambda rows, *_: told.append(rows))
    assert sum(told) == 2 * len(layer.mask)


def test_sums_of_the_losses_that_progress_is_told_are_those_of_the_chain(layer):
    told = []
    steps = chain("sparseswaps", "refit_swaps", "least_squares")
    whole = outcome(run(layer, steps, lambda _rows, *losses: told.append(losses)))
    before, after = (sum(losses) for losses in zip(*told, strict=True))
    assert before == pytest.approx(float(whole.loss_before.sum()))
    assert after == pytest.approx(float(whole.loss_after.sum()))
    assert all(first == 0 for first, _ in told[len(told) // 3 + 1 :])


def test_masks_come_before_weights():
    movers = {name for name, method in registry.methods(refiners).items() if method.updates_weights}
    assert "least_squares" in movers
    with pytest.raises(ValidationError, match="sparseswaps after least_squares"):
        chain("least_squares", "sparseswaps")
    assert [step.method for step in layer_steps(chain("sparseswaps", "least_squares"))] == [
        "sparseswaps",
        "least_squares",
    ]


def test_whole_blocks_are_refined_last():
    settings = chain("sparseswaps", "block_reconstruction")
    assert [step.method for step in layer_steps(settings)] == ["sparseswaps"]
    assert block_step(settings) == BlockReconstruction()
    assert block_step(chain("sparseswaps", "least_squares")) is None
    with pytest.raises(ValidationError, match=r"block_reconstruction: .*last"):
        chain("block_reconstruction", "sparseswaps")


def test_a_refiner_of_blocks_may_stand_alone():
    assert [step.method for step in layer_steps(BlockReconstruction())] == ["none"]
    assert block_step(BlockReconstruction(epochs=3)).epochs == 3
    assert block_step(SparseSwaps()) is None


def test_what_is_skipped_must_be_there():
    names = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"]
    for settings in (
        DSnoT(),
        DSnoT(skip=("*.mlp.*", names[0])),
        chain({"method": "dsnot", "skip": ["*.mlp.*"]}, "none"),
    ):
        check_skipped(settings, names)
    for settings in (DSnoT(skip=("*.mlp.*", "*.fc1")), chain("sparseswaps", {"method": "dsnot", "skip": ["*.fc1"]})):
        with pytest.raises(ParamsError, match=r"dsnot\.skip: '\*\.fc1' .*model\.layers\.0\.self_attn\.q_proj"):
            check_skipped(settings, names)
