"""The best of a column is that which differs from the next by more than the standard error of the difference."""

from math import sqrt

import pytest
from report_records import pruned, report

from prunelib.reporting.digits import significant
from prunelib.reporting.rows import rows_of
from prunelib.reporting.significance import leaders


def cells(start, values):
    """Cells of one warm start with these perplexities, a seed each."""
    for seed, value in enumerate(values):
        cell = pruned(start, seed=seed)
        perplexity = {"wiki": cell.result.perplexity["wiki"].model_copy(update={"value": value})}
        yield type(cell)(cell.result.model_copy(update={"perplexity": perplexity}), cell.layers, cell.timing)


def best(*columns):
    rows = rows_of(report([cell for start, values in columns for cell in cells(start, values)]))
    return [row.cell.warmstart for row in leaders(rows, "perplexity_wiki", min, significant)]


def test_single_draws_have_a_best_and_ties_share_it():
    assert best(("wanda", [10.0]), ("ria", [12.0])) == ["wanda"]
    assert best(("wanda", [10.0]), ("ria", [10.0]), ("random", [12.0])) == ["wanda", "ria"]
    assert best(("wanda", [10.0])) == []


@pytest.mark.parametrize(("times", "found"), [(0.9, []), (1.1, ["wanda"])])
def test_a_difference_counts_from_its_standard_error_on(times, found):
    """Deviations of 1 over three draws each: the standard error of the difference is sqrt(2 / 3)."""
    gap = times * sqrt(2 / 3)
    assert best(("wanda", [9.0, 10.0, 11.0]), ("ria", [9.0 + gap, 10.0 + gap, 11.0 + gap])) == found


@pytest.mark.parametrize(("times", "found"), [(0.9, []), (1.1, ["wanda"])])
def test_a_single_draw_has_the_deviation_of_its_group(times, found):
    gap = times * sqrt(1 + 1 / 3)
    assert best(("wanda", [10.0]), ("ria", [9.0 + gap, 10.0 + gap, 11.0 + gap])) == found
