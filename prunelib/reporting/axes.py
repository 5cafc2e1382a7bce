"""Axes of figures: limits without outliers, ticks that do not touch, and the place of a value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

LOG_FROM = 8
"""A logarithmic axis from this ratio of the extremes."""
_MOST_TICKS = 7
_STEPS = (1.0, 2.0, 2.5, 5.0)


@dataclass(frozen=True)
class Axis:
    """A scale from values to places.

    Attributes
    ----------
    low, high
        Values at its ends.
    start, end
        Places of these values, in pixels.
    gap
        Smallest distance between two ticks, in pixels.
    log
        Whether it is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    gap: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value; that of an end for a value beyond it."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        share = math.log(inside / low) / math.log(high / low) if self.log else (inside - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def beyond(self, value: float) -> bool:
        """Return whether a value is above the axis."""
        return value > self.high

    def ticks(self) -> list[float]:
        """Return at least two values for ticks, at least ``gap`` apart, for an axis as long as four gaps."""
        candidates = [*(_decades(self.low, self.high) if self.log else ()), *_linear(self.low, self.high)]
        return next((ticks for ticks in candidates if self._legible(ticks)), [self.low, self.high])

    def _legible(self, ticks: Sequence[float]) -> bool:
        places = [self.at(tick) for tick in ticks]
        apart = all(abs(second - first) >= self.gap for first, second in pairwise(places))
        return apart and 2 <= len(ticks) <= _MOST_TICKS


def _decades(low: float, high: float) -> list[list[float]]:
    """Return ticks at 1, 2, 5, then 1, 3, then 1 of every decade, then of every second and every fourth decade."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    sets = [((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 4)]
    ticks = ([digit * 10.0**exponent for exponent in exponents[::every] for digit in digits] for digits, every in sets)
    return [[tick for tick in each if low <= tick <= high] for each in ticks]


def _linear(low: float, high: float) -> list[list[float]]:
    """Return ticks at multiples of round steps, from many to few."""
    magnitude = math.floor(math.log10(high - low)) - 1
    steps = [step * 10.0**exponent for exponent in (magnitude, magnitude + 1) for step in _STEPS]
    return [
        [number * step for number in range(math.ceil(low / step), math.floor(high / step * (1 + 1e-12)) + 1)]
        for step in steps
    ]


def linear_axis(values: Sequence[float], start: float, end: float, gap: float, outlier: float = math.inf) -> Axis:
    """Return a linear axis over some positive values, with a margin.

    Values above ``outlier`` times the median are beyond it: they would squeeze all others together.
    """
    middle = median(values)
    inside = [value for value in values if value <= max(middle, outlier * middle)]
    low, high = min(inside), max(inside)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(max(0.0, low - margin) if low >= 0 else low - margin, high + margin, start, end, gap)


def positive_axis(values: Sequence[float], start: float, end: float, gap: float) -> Axis:
    """Return an axis over all of some positive values, logarithmic where they lie far apart."""
    low, high = min(values), max(values)
    if high < LOG_FROM * low:
        return linear_axis(values, start, end, gap)
    margin = (high / low) ** 0.06
    return Axis(low / margin, high * margin, start, end, gap, log=True)
