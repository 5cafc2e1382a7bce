"""Axes have ticks at any range, and outliers are beyond them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from prunelib.reporting.limits import is_log, set_linear, set_positive

VALUES = st.lists(st.floats(1e-3, 1e10), min_size=1, max_size=9)


def new_axes():
    return Figure(figsize=(5, 5)).add_subplot()


def ticks_of(axes):
    low, high = axes.get_xlim()
    return [tick for tick in axes.get_xticks() if low <= tick <= high]


@settings(deadline=None)
@given(VALUES, st.sampled_from([set_linear, set_positive]))
def test_every_axis_has_some_ticks_and_all_values(values, set_axis):
    axes = new_axes()
    set_axis(axes, "x", values)
    low, high = axes.get_xlim()
    assert 2 <= len(ticks_of(axes)) <= 10
    assert low <= min(values) <= max(values) <= high


def test_an_outlier_is_beyond_a_linear_axis():
    axes = new_axes()
    end = set_linear(axes, "x", [80, 90, 100, 110, 4e9], outlier=3)
    assert 110 < end < 120
    assert axes.get_xlim()[1] == end


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [0.0, 1.0]])
def test_zeros_and_single_values_have_an_axis(values):
    axes = new_axes()
    set_linear(axes, "x", values)
    assert len(ticks_of(axes)) >= 2


@pytest.mark.parametrize(("values", "log"), [([1, 7], False), ([1, 9], True), ([3], False)])
def test_values_far_apart_have_a_logarithmic_axis(values, log):
    axes = new_axes()
    set_positive(axes, "x", values)
    assert is_log(axes, "x") is log
