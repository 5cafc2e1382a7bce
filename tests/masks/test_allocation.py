"""Sparsities of blocks: as the papers' equations, in float64 and written out; never all or none of a block."""

from itertools import pairwise
from statistics import fmean, median_low

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prunelib import Atp, Dlp, Owl, PerLayer, PerRow, SparsityTable, parse_pattern
from prunelib.errors import ParamsError, PatternError
from prunelib.pruning.arguments import pattern_of

SCORES = st.lists(st.floats(0, 100, width=32), min_size=1, max_size=40)
IMPORTANCES = st.lists(st.floats(0, 10), min_size=1, max_size=12)


def owl(outliers, sparsity, spread):
    """OWL's kept shares (2310.05175, section 3.2): outlier shares moved to 0 to 2 lambda, then to the mean."""
    low, high = min(outliers), max(outliers)
    moved = [(each - low) / (high - low) * 2 * spread if high > low else 0.0 for each in outliers]
    return [each - sum(moved) / len(moved) + 1 - sparsity for each in moved]


def dlp(blocks, sparsity, spread):
    """DLP's kept shares (2505.23807): S the median score of a block, its importance 1 - S / sum of S."""
    medians = [median_low(scores) for scores in blocks]
    total = sum(medians)
    relative = [1 - each / total if total else 0.0 for each in medians]
    low, high = min(relative), max(relative)
    moved = [(each - low) / (high - low) * 2 * spread if high > low else 0.0 for each in relative]
    sparsities = [sparsity + sum(moved) / len(moved) - each for each in moved]
    return [1 - each for each in sparsities]


def atp(blocks, sparsity, slope):
    """ATP's kept shares (2502.14770, equation 10), i from 1."""
    return [1 - (sparsity - slope * (blocks - 1) / 2 + slope * (i - 1)) for i in range(1, blocks + 1)]


def shares(allocation, blocks, sparsity):
    """The kept share of each block, in order, for blocks given by their scores."""
    if isinstance(allocation, Atp):
        importances = allocation.importances(range(len(blocks)))
    else:
        importances = {i: allocation.importance(torch.tensor(scores)) for i, scores in enumerate(blocks)}
    found = allocation.kept_shares(importances, sparsity)
    assert list(found) == list(range(len(blocks)))
    return list(found.values())


@given(SCORES, st.sampled_from([0.5, 2.0, 5.0]))
def test_owl_measures_the_share_of_outliers(scores, outlier):
    scores = torch.tensor(scores).tolist()  # rounded to float32
    mean = sum(scores) / len(scores)
    if any(abs(score - outlier * mean) <= 1e-5 * score for score in scores):  # on the threshold: rounding decides
        return
    expected = sum(score > outlier * mean for score in scores) / len(scores)
    assert Owl(outlier=outlier).importance(torch.tensor(scores)) == pytest.approx(expected)


@given(SCORES)
def test_dlp_measures_the_median(scores):
    scores = torch.tensor(scores).tolist()
    assert Dlp().importance(torch.tensor(scores)) == -median_low(scores)


@given(IMPORTANCES, st.floats(0.41, 0.59), st.floats(0, 0.2))
def test_owl_is_as_in_the_paper(outliers, sparsity, spread):
    found = Owl(spread=spread).kept_shares(dict(enumerate(outliers)), sparsity)
    assert list(found.values()) == pytest.approx(owl(outliers, sparsity, spread))


def distinguishable(blocks):
    """Whether medians differ by more than the rounding that the paper's normalisation adds, or not at all."""
    medians = sorted({median_low(scores) for scores in blocks})
    return len(medians) == 1 or min(b - a for a, b in pairwise(medians)) > 1e-3


@given(st.lists(SCORES, min_size=1, max_size=12).filter(distinguishable), st.floats(0.41, 0.59), st.floats(0, 0.2))
def test_dlp_is_as_in_the_paper(blocks, sparsity, spread):
    blocks = [torch.tensor(scores).tolist() for scores in blocks]
    assert shares(Dlp(spread=spread), blocks, sparsity) == pytest.approx(dlp(blocks, sparsity, spread), abs=1e-9)


@given(st.integers(1, 200), st.floats(0.05, 0.95), st.floats(0, 0.99))
def test_atp_is_as_in_the_paper(blocks, sparsity, share_of_bound):
    slope = share_of_bound * 2 * min(sparsity, 1 - sparsity) / max(blocks - 1, 2)
    found = shares(Atp(slope=slope), [[1.0]] * blocks, sparsity)
    assert found == pytest.approx(atp(blocks, sparsity, slope))
    assert fmean(found) == pytest.approx(1 - sparsity)


def test_atp_counts_from_the_first_block_with_layers():
    allocation = Atp(slope=0.02)
    found = allocation.kept_shares(allocation.importances([2, 4, 5]), 0.6)
    assert found[2] - found[4] == pytest.approx(2 * 0.02)
    assert found[4] - found[5] == pytest.approx(0.02)
    assert fmean(found.values()) == pytest.approx(0.4)


@pytest.mark.parametrize("allocation", [Owl(), Dlp(), Atp()], ids=lambda each: each.method)
@pytest.mark.parametrize("blocks", [[], [[3.0, 1.0]], [[0.0, 0.0]]], ids=["no block", "one block", "one of zeros"])
def test_a_single_block_keeps_the_mean_share(allocation, blocks):
    assert shares(allocation, blocks, 0.7) == pytest.approx([0.3] * len(blocks))


@pytest.mark.parametrize("allocation", [Owl(), Dlp()], ids=lambda each: each.method)
@pytest.mark.parametrize("scores", [[1.0, 2.0, 50.0], [0.0, 0.0]], ids=["alike", "zeros"])
def test_blocks_that_are_all_alike_keep_the_same(allocation, scores):
    assert shares(allocation, [scores] * 4, 0.7) == pytest.approx([0.3] * 4)


def test_a_block_of_zeros_beside_others():
    blocks = [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [2.0, 4.0, 6.0]]
    assert shares(Dlp(spread=0.1), blocks, 0.5) == pytest.approx([0.5, 0.6, 0.4])
    found = shares(Owl(outlier=1.2, spread=0.1), blocks, 0.5)
    assert found[0] == found[2] > found[1]


@given(
    allocation=st.one_of(
        st.builds(Owl, spread=st.floats(0, 0.49)),
        st.builds(Dlp, spread=st.floats(0, 0.49)),
        st.builds(Atp, slope=st.floats(0, 0.2)),
    ),
    importances=IMPORTANCES,
    sparsity=st.floats(0.01, 0.99),
)
def test_blocks_keep_between_none_and_all_or_are_refused(allocation, importances, sparsity):
    try:
        found = allocation.kept_shares(dict(enumerate(importances)), sparsity)
    except PatternError as error:
        assert f"allocation.{allocation.width_key} = " in str(error)  # noqa: PT017 - an error is allowed, not expected
        return
    kept = list(found.values())
    assert all(0 < share < 1 for share in kept)
    assert fmean(kept) == pytest.approx(1 - sparsity)
    for (a, share_a), (b, share_b) in pairwise(zip(importances, kept, strict=True)):
        assert share_a == pytest.approx(share_b) or (share_a > share_b) == (a > b)


@pytest.mark.parametrize("kind", [PerRow, PerLayer])
@pytest.mark.parametrize("allocation", [Owl(spread=0.2), Dlp(spread=0.2)], ids=lambda each: each.method)
@pytest.mark.parametrize("sparsity", [0.1, 0.2, 0.8, 0.9])
def test_a_spread_too_large_for_the_sparsity_is_refused(kind, allocation, sparsity):
    with pytest.raises(ValidationError, match=r"allocation\.spread = 0\.2"):
        kind(sparsity=sparsity, allocation=allocation)
    kind(sparsity=0.5, allocation=allocation)
    with pytest.raises(ParamsError, match=r"^pattern: allocation\.spread = 0\.2") as refused:
        pattern_of(kind(sparsity=sparsity), allocation)
    assert "\n" not in str(refused.value)


def test_an_argument_may_be_a_mapping():
    expected = PerRow(sparsity=0.7, allocation=Dlp(spread=0.1))
    assert pattern_of("70%", {"method": "dlp", "spread": 0.1}) == expected
    assert pattern_of("70%", Dlp(spread=0.1)) == expected


def test_a_slope_too_large_for_the_sparsity_is_refused():
    allocation, blocks = Atp(slope=0.03), range(21)
    allocation.kept_shares(allocation.importances(blocks), 0.6)
    with pytest.raises(PatternError, match=r"allocation\.slope = 0\.03.* 0\.450 to 1\.050"):
        allocation.kept_shares(allocation.importances(blocks), 0.75)
    with pytest.raises(PatternError, match=r"allocation\.slope = 0\.03.* -0\.050 to 0\.550"):
        allocation.kept_shares(allocation.importances(blocks), 0.25)


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (Owl, {"spread": 0.5}),
        (Dlp, {"spread": -0.1}),
        (Dlp, {"outlier": 5}),
        (Atp, {"slope": -0.01}),
        (Atp, {"slope": 1}),
    ],
)
def test_impossible_settings_are_refused(settings, values):
    with pytest.raises(ValidationError):
        settings(**values)


@pytest.mark.parametrize("allocation", [Owl(), Dlp(), Atp(), SparsityTable(sparsities={"*": 0.5})])
def test_the_text_form_names_the_allocation_and_is_not_read_back(allocation):
    label = PerRow(sparsity=0.7, allocation=allocation).label
    assert label == f"70% per row, {allocation.title}"
    with pytest.raises(PatternError):
        parse_pattern(label)


def test_provenance_has_the_settings_in_their_order():
    assert Owl().model_dump_json() == '{"method":"owl","outlier":5.0,"spread":0.08}'
    assert Dlp().model_dump_json() == '{"method":"dlp","spread":0.15}'
    assert Atp().model_dump_json() == '{"method":"atp","slope":0.01}'
