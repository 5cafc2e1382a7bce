"""Limits and ticks of axes: outliers are beyond, and there are ticks at any range."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

LOG_FROM = 8
"""A logarithmic axis from this ratio of the extremes."""
_MARGIN = 0.08

Side = Literal["x", "y"]


def set_linear(axes: Axes, side: Side, values: Sequence[float], outlier: float = math.inf) -> float:
    """Set a linear axis over some values, and return its upper end.

    Values above ``outlier`` times the median are beyond it: they would squeeze all others together.
    """
    middle = median(values)
    inside = [value for value in values if value <= max(middle, outlier * middle)]
    low, high = min(inside), max(inside)
    margin = _MARGIN * (high - low) or _MARGIN * abs(high) or 1.0
    end = high + margin
    axes.set(**{f"{side}lim": (max(0.0, low - margin) if low >= 0 else low - margin, end)})
    _axis(axes, side).set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))
    _axis(axes, side).set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:.6g}"))
    return end


def set_positive(axes: Axes, side: Side, values: Sequence[float]) -> None:
    """Set an axis over all of some positive values, logarithmic where they lie far apart."""
    low, high = min(values), max(values)
    if high < LOG_FROM * low:
        set_linear(axes, side, values)
        return
    margin = (high / low) ** _MARGIN
    axes.set(**{f"{side}scale": "log", f"{side}lim": (low / margin, high * margin)})
    subs = (1, 2, 5) if high < 1000 * low else (1,)
    _axis(axes, side).set_major_locator(LogLocator(subs=subs, numticks=6))
    _axis(axes, side).set_minor_locator(NullLocator())
    _axis(axes, side).set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))


def is_log(axes: Axes, side: Side) -> bool:
    """Return whether an axis is logarithmic."""
    return _axis(axes, side).get_scale() == "log"


def _axis(axes: Axes, side: Side) -> Axis:
    return axes.xaxis if side == "x" else axes.yaxis
