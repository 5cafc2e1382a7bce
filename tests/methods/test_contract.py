"""What every method promises, over all that the registry finds."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import PATTERNS, PER_LAYER, problem, problems

from prunelib import PerLayer, refiners, warmstarts
from prunelib.errors import NumericalError, PatternError
from prunelib.masks.checks import check_mask
from prunelib.methods import registry
from prunelib.methods.contract import NOTHING_ELSE, ExtraInputs, Refined, Refiner, WarmStart, silent
from prunelib.runtime.compute import AUTO, Compute

REFINERS, WARMSTARTS = registry.methods(refiners), registry.methods(warmstarts)
CHOOSING = [name for name, method in WARMSTARTS.items() if method.read is None]
EVERY_PATTERN = [*PATTERNS, *PER_LAYER]
of_refiners = pytest.mark.parametrize("method", REFINERS.values(), ids=list(REFINERS))


def known(p, method):
    """What a refiner uses beyond the layer, as a calibration over so many tokens would know it."""
    everything = ExtraInputs(
        input_mean=torch.zeros(len(p.gram)), tokens=10, windows=1, name="layer", held_out_gram=p.gram
    )
    return NOTHING_ELSE._replace(**{name: getattr(everything, name) for name in method.extra_inputs})


def refine(method, p, progress=silent, compute=AUTO):
    return method.refine(p.weight, p.gram, p.mask, p.pattern, method.settings(), progress, known(p, method), compute)


def supported(method, patterns=EVERY_PATTERN):
    return [pattern for pattern in patterns if method.supports(pattern)]


def some_layer(method, rows=6):
    return problem(1, supported(method)[-1], rows=rows, inputs=24, tokens=80)


def test_each_method_is_named_after_its_file_and_of_its_kind():
    for found, kind in ((REFINERS, Refiner), (WARMSTARTS, WarmStart)):
        for name, method in found.items():
            assert isinstance(method, kind)
            assert method.settings.model_fields["method"].default == name
    assert all(set(method.extra_inputs) <= set(ExtraInputs._fields) for method in REFINERS.values())
    for method in WARMSTARTS.values():
        assert sum(function is not None for function in (method.saliency, method.choose, method.read)) == 1


@of_refiners
@settings(max_examples=80)
@given(st.data())
def test_refinement_keeps_every_count_and_raises_no_loss_where_it_says_so(method, data):
    p = data.draw(problems(patterns=supported(method)))
    refined = refine(method, p)
    check_mask(refined.mask, p.weight, p.pattern)
    if method.monotone:
        assert refined.loss_after.sum() <= refined.loss_before.sum()
    if method.monotone and not isinstance(p.pattern, PerLayer):
        assert (refined.loss_after <= refined.loss_before).all()


@of_refiners
def test_refinement_changes_none_of_its_inputs(method):
    p = some_layer(method)
    before = [tensor.clone() for tensor in (p.weight, p.gram, p.mask)]
    refine(method, p)
    assert all(map(torch.equal, before, (p.weight, p.gram, p.mask)))


@of_refiners
def test_refined_rows_have_the_promised_shapes_and_dtypes(method):
    p = some_layer(method)
    refined = refine(method, p)
    assert isinstance(refined, Refined)
    assert refined.mask.dtype == torch.bool
    rows = {"loss_before": torch.float64, "loss_after": torch.float64, "swaps": torch.int64}
    rows |= {"sweeps": torch.int64, "optimal": torch.bool}
    for name, dtype in rows.items():
        of_rows = getattr(refined, name)
        assert of_rows is None or (of_rows.dtype == dtype and of_rows.shape == (len(p.weight),)), name
    assert (refined.weight is not None) == method.updates_weights
    if refined.weight is not None:
        assert (refined.weight[~refined.mask] == 0).all()


@of_refiners
def test_progress_hears_of_every_row_once(method):
    p, calls = some_layer(method, rows=70), []
    refined = refine(method, p, lambda *figures: calls.append(figures))
    rows, before, after = map(sum, zip(*calls, strict=True))
    assert rows == 70
    assert before == pytest.approx(float(refined.loss_before.sum()))
    assert after == pytest.approx(float(refined.loss_after.sum()))


@of_refiners
@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(method, threads):
    p, before = some_layer(method, rows=40), torch.get_num_threads()
    one = refine(method, p, compute=Compute(1))
    try:
        torch.set_num_threads(threads)
        many = refine(method, p, compute=Compute(threads))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.mask, many.mask)
    assert torch.equal(one.loss_after, many.loss_after)
    assert one.weight is None or torch.equal(one.weight, many.weight)


@of_refiners
def test_bad_layers_are_refused(method):
    p = some_layer(method)
    for bad, error in (
        ({"weight": p.weight * torch.nan}, NumericalError),
        ({"gram": p.gram * torch.nan}, NumericalError),
        ({"gram": p.gram[:4, :4]}, NumericalError),
        ({"mask": ~p.mask if 2 * p.mask.sum() != p.mask.numel() else p.mask & False}, PatternError),
        ({"mask": p.mask[:, :8]}, PatternError),
        ({"mask": p.mask.float()}, PatternError),
    ):
        with pytest.raises(error):
            refine(method, replace(p, **bad))


@of_refiners
def test_patterns_that_it_does_not_support_are_refused(method):
    for pattern in EVERY_PATTERN:
        if not method.supports(pattern):
            with pytest.raises(PatternError):
                refine(method, problem(2, pattern, rows=4, inputs=24, tokens=80))


@pytest.mark.parametrize("name", CHOOSING)
@given(problems())
def test_warm_starts_keep_exact_counts_and_change_nothing(name, p):
    method = WARMSTARTS[name]
    before = p.weight.clone(), p.gram.clone()
    mask = method.layer_mask(p.weight, p.gram, p.pattern, method.settings())
    check_mask(mask, p.weight, p.pattern)
    assert all(map(torch.equal, before, (p.weight, p.gram)))


def test_a_warm_start_may_choose_by_itself_but_not_miscount():
    p, calls = problem(0, PATTERNS[2], rows=4, inputs=8, tokens=40), []

    def choose(*arguments):
        calls.append(arguments)
        return p.mask

    own = WARMSTARTS["wanda"].settings()
    method = WarmStart(settings=type(own), summary="", choose=choose)
    assert torch.equal(method.layer_mask(p.weight, p.gram, p.pattern, own), p.mask)
    assert calls == [(p.weight, p.gram, p.pattern, own)]
    with pytest.raises(PatternError, match="groups do not keep exactly"):
        method.layer_mask(p.weight, p.gram, PATTERNS[3], own)


def test_a_score_that_is_no_number_is_refused():
    p, own = problem(0, PATTERNS[2], rows=4, inputs=8, tokens=40), WARMSTARTS["wanda"].settings()
    method = WarmStart(settings=type(own), summary="", saliency=lambda weight, _gram, _settings: weight * torch.nan)
    with pytest.raises(NumericalError, match="scores: NaN"):
        method.layer_mask(p.weight, p.gram, p.pattern, own)
