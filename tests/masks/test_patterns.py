from fractions import Fraction
from typing import get_args

import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prunelib import NOfM, PerLayer, PerRow, parse_pattern, select
from prunelib.errors import NumericalError, PatternError
from prunelib.masks.checks import check_counts, check_mask
from prunelib.masks.patterns import EXAMPLES, AnyPattern

SPARSITIES = st.integers(1, 999_999).map(lambda number: number / 1_000_000)  # percentages of six digits
N_OF_M = st.integers(2, 10_000).flatmap(
    lambda group: st.builds(NOfM, keep=st.integers(1, group - 1), group=st.just(group))
)


@pytest.mark.parametrize(
    ("sparsity", "inputs", "keep"),
    [(0.29, 100, 71), (0.6, 576, 231), (0.5, 7, 4), (0.999, 3, 1), (0.1, 3, 3), (0.7, 10, 3)],
)
def test_per_row_counts_in_exact_fractions(sparsity, inputs, keep):
    assert PerRow(sparsity=sparsity).groups(3, inputs) == (inputs, keep)


@pytest.mark.parametrize(("keep", "group"), [(1, 4), (2, 4), (3, 4), (4, 8), (8, 16), (1, 2)])
def test_n_of_m_keeps_n(keep, group):
    mask = select(torch.rand(6, 3 * group), NOfM(keep=keep, group=group))
    assert (mask.view(6, 3, group).sum(-1) == keep).all()


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, -1.0, float("inf")]), min_size=8, max_size=8), min_size=1, max_size=3
    ),
    st.sampled_from(
        [
            PerRow(sparsity=0.6),
            PerRow(sparsity=0.29),
            NOfM(keep=1, group=4),
            NOfM(keep=3, group=4),
            NOfM(keep=4, group=8),
        ]
    ),
)
def test_selection_is_by_rank_with_ties_to_the_lower_column(scores, pattern):
    size, keep = pattern.groups(2, 8)
    assert select(torch.tensor(scores), pattern).tolist() == oracles.select(scores, size, keep).tolist()


def test_nan_scores_are_refused():
    with pytest.raises(NumericalError, match="scores: NaN"):
        select(torch.tensor([[1.0, float("nan")]]), PerRow(sparsity=0.5))


def test_a_group_that_does_not_divide_is_refused():
    with pytest.raises(PatternError, match="pattern 2:4: group 4 does not divide the layer's 6 inputs"):
        select(torch.rand(2, 6), NOfM(keep=2, group=4))


@pytest.mark.parametrize("sparsity", [0, 1, -0.1, 1.5, float("nan")])
def test_impossible_sparsities_are_refused(sparsity):
    with pytest.raises(ValidationError):
        PerRow(sparsity=sparsity)


@pytest.mark.parametrize(("keep", "group"), [(4, 4), (5, 4), (0, 4), (1, 1)])
def test_impossible_groups_are_refused(keep, group):
    with pytest.raises(ValidationError):
        NOfM(keep=keep, group=group)


def test_masks_with_other_counts_are_refused():
    weight, pattern = torch.rand(2, 8), NOfM(keep=2, group=4)
    mask = select(weight, pattern)
    check_mask(mask, weight, pattern)
    mask[1, 3] = ~mask[1, 3]
    with pytest.raises(PatternError, match=r"1 of 4 groups do not keep exactly 2 of 4 \(2:4\)"):
        check_mask(mask, weight, pattern)
    with pytest.raises(PatternError, match=r"expected torch\.bool"):
        check_mask(mask.float(), weight, pattern)
    with pytest.raises(PatternError, match="shape"):
        check_mask(mask, torch.rand(2, 12), pattern)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("60%", PerRow(sparsity=0.6)),
        ("29%", PerRow(sparsity=0.29)),
        ("50% per row", PerRow(sparsity=0.5)),
        ("12.5% per layer", PerLayer(sparsity=0.125)),
        ("2:4", NOfM(keep=2, group=4)),
    ],
)
def test_patterns_are_read_as_a_person_writes_them(text, pattern):
    assert parse_pattern(text) == pattern


SHARES = st.floats(1e-12, 1, exclude_max=True)


@given(st.builds(PerRow, sparsity=SHARES) | st.builds(PerLayer, sparsity=SHARES))
def test_a_label_has_every_digit(pattern):
    assert parse_pattern(pattern.label) == pattern


@given(st.one_of(st.builds(PerRow, sparsity=SPARSITIES), st.builds(PerLayer, sparsity=SPARSITIES), N_OF_M))
def test_a_label_is_read_back_as_its_pattern(pattern):
    assert parse_pattern(pattern.label) == pattern


@pytest.mark.parametrize(
    "text",
    [
        *("", "60", "0.6", "0%", "100%", "150%", "-5%", "nan%", "60% per column", "60% per row, OWL", " 60%", "60%\n"),
        *("4:4", "0:4", "2:1", "2-4", "2:4:8", "1e9:2e9", "\u0662:\u0664"),
        *("99.9999999999999999999% per layer", "1e-999%", "1e-999999999%", f"0.{'1' * 5000}%"),
    ],
)
def test_other_texts_are_refused_in_one_line(text):
    with pytest.raises(PatternError) as caught:
        parse_pattern(text)
    assert str(caught.value) == (
        f"pattern {text!r}: expected x% or x% per row with 0 < x < 100, x% per layer with 0 < x < 100, "
        "or n:m with 0 < n < m"
    )


@given(st.text(max_size=20) | st.from_regex(r"[0-9.:%e-]{1,8}( per row| per layer)?", fullmatch=True))
def test_any_text_is_read_or_refused(text):
    try:
        pattern = parse_pattern(text)
    except PatternError:
        return
    assert isinstance(pattern, PerRow | PerLayer | NOfM)


def test_there_is_one_example_of_every_kind():
    union, _ = get_args(AnyPattern)
    assert tuple(type(example) for example in EXAMPLES) == get_args(union)


def test_a_pattern_says_what_it_keeps_of_any_matrix():
    assert [example.kept_share for example in EXAMPLES] == [Fraction(1, 2)] * 3
    assert PerRow(sparsity=0.29).kept_share == Fraction(71, 100)
    assert PerRow(sparsity=0.29).mean_sparsity == 0.29
    assert NOfM(keep=1, group=3).kept_share == Fraction(1, 3)


@pytest.mark.parametrize("pattern", EXAMPLES, ids=lambda pattern: pattern.label)
def test_a_pattern_holds_in_the_weights_that_its_mask_keeps(pattern):
    weight = torch.rand(4, 8) + 1
    mask = select(weight, pattern)
    assert pattern.holds_in(weight * mask)
    assert not pattern.holds_in(weight)


def test_sparse_units_multiply_2_4_alone():
    patterns = [*EXAMPLES, NOfM(keep=1, group=4), NOfM(keep=4, group=8)]
    assert [pattern.label for pattern in patterns if pattern.semi_structured] == ["2:4"]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (PerRow(sparsity=0.6), '{"kind":"per_row","sparsity":0.6,"allocation":null}'),
        (PerLayer(sparsity=0.6), '{"kind":"per_layer","sparsity":0.6,"allocation":null}'),
        (NOfM(keep=2, group=4), '{"kind":"n_of_m","keep":2,"group":4}'),
    ],
)
def test_provenance_has_the_settings_of_params_yaml_in_their_order(pattern, text):
    assert pattern.model_dump_json() == text


def test_counts_are_those_of_each_group_and_not_of_the_layer():
    mask = torch.tensor([[True, True, False, False], [True, True, False, False]])
    check_counts({"a": mask}, PerRow(sparsity=0.5))
    mask[0, 0], mask[1, 2] = False, True
    with pytest.raises(PatternError, match=r"^a: mask: 2 of 2 groups .* row 0$"):
        check_counts({"a": mask}, PerRow(sparsity=0.5))
