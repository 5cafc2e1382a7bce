"""What is said of a cell by holding it against others."""

import csv
import io
from dataclasses import replace

import pytest
from report_records import CASES, layers, pruned, report

from prunelib.reporting.baselines import Baselines
from prunelib.reporting.notes import notes
from prunelib.reporting.tables import results_csv, results_tables


def bounded(cell, bounds):
    """The cell with a bound for each layer."""
    made = [layer.model_copy(update={"bound": bound}) for layer, bound in zip(cell.layers, bounds, strict=True)]
    return replace(cell, layers=made)


def column(known, name):
    """A column of results.csv, None where it is empty."""
    rows = csv.DictReader(io.StringIO(results_csv(known)))
    return [float(row[name]) if row[name] else None for row in rows]


def test_the_gap_is_what_the_highest_bound_of_any_cell_leaves():
    first = bounded(pruned("wanda", "none"), [0.1, 0.4, 0.1, 0.4, 0.1, 0.4])
    second = bounded(pruned("ria", "fw"), [0.3, 0.2, 0.3, 0.2, None, 0.2])
    best = [0.3, 0.4, 0.3, 0.4, 0.1, 0.4]
    expected = [
        sum(1 - bound / layer.loss_after for bound, layer in zip(best, cell.layers, strict=True)) / 6
        for cell in (first, second)
    ]
    assert column(report([first, second]), "optimality_gap") == pytest.approx(expected)
    totals = [1 - sum(best) / sum(layer.loss_after for layer in cell.layers) for cell in (first, second)]
    assert column(report([first, second]), "optimality_gap_total") == pytest.approx(totals)


@pytest.mark.parametrize("other", [{"seed": 1}, {"pattern": "nm24"}, {"model": "small"}])
def test_a_bound_counts_only_for_its_own_problem(other):
    known = report([pruned(bound=0.1), pruned(**other)])
    assert column(known, "optimality_gap")[0] > 0
    assert column(known, "optimality_gap")[1] is None


def test_a_layer_without_bound_or_updated_weights_leave_no_room():
    partly = bounded(pruned(), [0.1, 0.1, 0.1, 0.1, 0.1, None])
    updated = pruned(refiner="refit", updated=True, bound=0.1)
    assert column(report([partly]), "optimality_gap") == [None]
    assert column(report([updated]), "optimality_gap") == [None]
    assert column(report([updated, pruned()]), "optimality_gap")[1] > 0


def test_a_layer_without_error_has_no_room():
    known = report([replace(pruned(), layers=layers(6, 1.0, bound=0.0))])
    assert column(known, "optimality_gap") == [0.0]


def test_error_is_held_against_wandas_mask():
    wanda = pruned("wanda", "swaps")
    other = replace(pruned("magnitude", "none"), layers=layers(None, 0.0, 3.0))
    refit = replace(pruned("magnitude", "refit"), layers=layers(None, 0.9, 3.0, updated=True))
    assert column(report([wanda, other, refit]), "error_vs_wanda") == pytest.approx([0.5, 3.0, 0.3])


@pytest.mark.parametrize("other", [{"seed": 1}, {"pattern": "nm24"}, {"model": "small"}])
def test_wandas_mask_counts_only_for_its_own_problem(other):
    assert column(report([pruned("wanda"), pruned("ria", **other)]), "error_vs_wanda") == [0.5, None]


def test_layers_where_wandas_mask_has_no_error_are_left_out():
    made = layers(6, 0.5)
    exact = [made[0].model_copy(update={"loss_before": 0.0, "loss_after": 0.0}), *made[1:]]
    assert Baselines([(cell := replace(pruned(), layers=exact))]).error_vs_wanda(cell) == 0.5
    assert Baselines([(cell := replace(pruned(), layers=exact[:1]))]).error_vs_wanda(cell) is None


def test_columns_and_notes_of_comparisons_are_there_only_with_something_to_compare():
    def told(known):
        headings = results_tables(known, costs=True)[0].headings
        columns = [
            any(heading.startswith(name) for heading in headings) for name in ("Optimality gap", "Error / Wanda")
        ]
        lines = [any(note.startswith(name) for note in notes(known)) for name in ("Optimality gap", "Error / Wanda")]
        return columns, lines

    assert told(CASES["updated weights"]) == ([True, True], [True, True])
    assert told(report([pruned("ria")])) == ([False, False], [False, False])


def test_cells_with_gram_matrices_of_their_own_are_compared_with_themselves():
    """Calibrated on the outputs of pruned blocks: the error of Wanda's mask, and a bound, are others in each cell."""
    plain = replace(pruned("wanda", "none"), layers=layers(None, 0.0, 10.0))
    swaps = replace(pruned("wanda", "swaps"), layers=layers(6, 0.5, 8.0))
    bounded = replace(pruned("wanda", "fw"), layers=layers(None, 0.25, 12.0, bound=7.0))
    elsewhere = replace(pruned("ria", "none"), layers=layers(None, 0.0, 9.0))
    known = report([plain, swaps, bounded, elsewhere], shared_inputs=False)
    assert column(known, "error_vs_wanda") == pytest.approx([1.0, 0.5, 0.75, None])
    assert [value is None for value in column(known, "optimality_gap")] == [True, True, False, True]
