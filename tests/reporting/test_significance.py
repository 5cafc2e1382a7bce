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


def test_a_value_of_one_draw_counts_as_one_draw():
    """A text that only one of three draws was measured on: its mean is as uncertain as one value."""
    known, unknown = cells("wanda", [20.0]), list(cells("wanda", [0.0, 20.0, 20.0]))[1:]
    unknown = [
        type(cell)(cell.result.model_copy(update={"perplexity": {}}), cell.layers, cell.timing) for cell in unknown
    ]
    rows = rows_of(report([*known, *unknown, *cells("ria", [19.8, 21.0, 22.2])]))
    assert [row.draws_of("perplexity_wiki") for row in rows] == [1, 3]
    assert leaders(rows, "perplexity_wiki", min, significant) == []
