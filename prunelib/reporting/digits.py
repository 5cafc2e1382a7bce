"""Numbers in sensible digits for people."""

import math


def significant(value: float, digits: int = 3) -> str:
    """A number in at least ``digits`` significant digits, all digits before the point kept: 0.0931, 25.9, 3486."""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, decimals)}f}" if -4 <= decimals <= 8 else f"{value:.{digits - 1}e}"


def percent(fraction: float) -> str:
    """A fraction in percent with one decimal, without the sign: 46.2."""
    return f"{100 * fraction:z.1f}"


def percent_reached(fraction: float) -> str:
    """As :func:`percent`, rounded down: 100.0 means every one."""
    return f"{math.floor(1000 * fraction) / 10:.1f}"


def percent_at_most(fraction: float) -> str:
    """As :func:`percent`, rounded up: 12.3 means that it is not more."""
    return f"{math.ceil(1000 * fraction) / 10:z.1f}"


def plus_minus(text: str, spread: float) -> str:
    """A number's text and its spread, in as many decimals: 88.42 ± 1.35."""
    decimals = len(text.partition(".")[2])
    return f"{text} ± {spread:.{decimals}f}"
