"""Numbers rounded for display."""

import math


def significant(value: float, digits: int = 3) -> str:
    """Format a number with at least ``digits`` significant digits, never rounding the integer part: 0.0931, 25.9, 3486.

    With 3 digits, numbers below 1e-6 or from 1e7 on are in scientific notation.
    """
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, decimals)}f}" if -4 <= decimals <= 8 else f"{value:.{digits - 1}e}"


def percent(fraction: float) -> str:
    """Format a fraction in percent with one decimal, without the percent sign: 46.2."""
    return f"{100 * fraction:z.1f}"


def percent_reached(fraction: float) -> str:
    """Format as :func:`percent`, rounded down: 100.0 means all."""
    return f"{math.floor(1000 * fraction) / 10:.1f}"


def percent_at_most(fraction: float) -> str:
    """Format as :func:`percent`, rounded up: 12.3 means at most 12.3%."""
    return f"{math.ceil(1000 * fraction) / 10:z.1f}"


def plus_minus(text: str, spread: float) -> str:
    """Append a spread to a number's text, with as many decimals: 88.42 ± 1.35."""
    decimals = len(text.partition(".")[2])
    return f"{text} ± {spread:.{decimals}f}"
