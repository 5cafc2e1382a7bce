"""Axes have ticks at any range, and labels cover nothing."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelib.reporting.axes import linear_axis, positive_axis
from prunelib.reporting.labels import Box, place
from prunelib.reporting.svg import FONT, width_of

VALUES = st.lists(st.floats(1e-3, 1e10), min_size=1, max_size=9)


@given(VALUES, st.sampled_from([linear_axis, positive_axis]))
def test_every_axis_has_ticks_apart_within_it(values, make):
    axis = make(values, 50, 350, 34)
    ticks = axis.ticks()
    assert len(ticks) >= 2
    assert all(axis.low <= tick <= axis.high * (1 + 1e-9) for tick in ticks)
    assert all(abs(axis.at(one) - axis.at(other)) >= 33.9 for one, other in pairwise(ticks))


@given(VALUES)
def test_values_stand_in_order_between_the_ends(values):
    axis = positive_axis(values, 50, 350, 34)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(50 <= place <= 350 for place in places)


def test_an_outlier_is_beyond_a_linear_axis():
    axis = linear_axis([80, 90, 100, 110, 4e9], 50, 350, 34, outlier=3)
    assert axis.beyond(4e9)
    assert axis.at(4e9) == 350
    assert not axis.beyond(110)
    assert axis.at(110) - axis.at(80) > 200


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [0.0, 1.0]])
def test_zeros_and_single_values_have_an_axis(values):
    axis = linear_axis(values, 50, 350, 34)
    assert len(axis.ticks()) >= 2


@given(st.lists(st.tuples(st.floats(50, 350), st.floats(50, 300)), max_size=12))
def test_labels_cover_no_point_and_no_label(points):
    frame = Box(40, 40, 390, 320)
    labels = [f"label {number}" for number in range(len(points))]
    boxes = [box for box in place(points, labels, frame) if box]
    assert not any(one.meets(other) for one, other in combinations(boxes, 2))
    for box in boxes:
        assert box.within(frame)
        assert not any(box.left < x < box.right and box.top < y < box.bottom for x, y in points)


def test_a_lone_label_stands_to_the_right_of_its_point():
    (box,) = place([(100, 100)], ["one"], Box(0, 0, 400, 300))
    assert box == Box(108, 100 - FONT / 2, 108 + width_of("one"), 100 + FONT / 2)
