"""Which rows of a report are means over several draws of the calibration tokens."""

from collections.abc import Sequence

from prunelib.reporting.rows import Row


def draws_differ(rows: Sequence[Row]) -> bool:
    """Return whether some rows of pruned models are of more draws than others."""
    return len(_counts(rows)) > 1


def means(rows: Sequence[Row]) -> str:
    """Return a sentence on which values of some rows are means over draws; empty if all are of a single draw."""
    counts = _counts(rows)
    if counts <= {1}:
        return ""
    if len(counts) == 1:
        return f"Every value of a pruned model is the mean over {next(iter(counts))} draws of calibration tokens."
    several, all_rows = sum(row.draws > 1 for row in rows), sum(row.draws > 0 for row in rows)
    drawn = f"{several} of {all_rows} pruned models are means over several draws of calibration tokens, marked ±"
    return f"{drawn}; the others are of one draw." if min(counts) == 1 else f"{drawn}."


def _counts(rows: Sequence[Row]) -> set[int]:
    return {row.draws for row in rows if row.draws}
