"""Tables in Markdown, and their entries."""

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table: the first ``left`` columns aligned to the left, the others to the right."""
    lines = [headings, ["---" if column < left else "---:" for column in range(len(headings))], *rows]
    return "".join(f"| {' | '.join(entry.replace('|', chr(92) + '|') for entry in line)} |\n" for line in lines)


def mean(values: Sequence[float], digits: int) -> str:
    """Return the mean, with the standard deviation where there are several values; empty for none."""
    if not values:
        return ""
    shown = f"{fmean(values):,.{digits}f}"
    return f"{shown} ± {stdev(values):.{digits}f}" if len(values) > 1 else shown
