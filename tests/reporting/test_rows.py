"""Several draws of the calibration tokens, taken together."""

from dataclasses import replace
from statistics import mean, stdev

import pytest
from report_records import CASES, CELLS, dense, pruned, report

from prunelib.reporting.draws import means
from prunelib.reporting.figures import draw
from prunelib.reporting.notes import notes
from prunelib.reporting.page import findings
from prunelib.reporting.rows import grouped, rows_of, title
from prunelib.reporting.tables import results_tables

DRAWS = CASES["several seeds"]


def shown(known):
    """The last row of the only model's table, by heading without its arrow."""
    (table,) = results_tables(known, costs=True)
    headings = [heading.split("\N{NO-BREAK SPACE}")[0] for heading in table.headings]
    return dict(zip(headings, (entry.text for entry in table.groups[-1].rows[-1]), strict=True))


def test_a_row_shows_means_and_sample_standard_deviations():
    errors = [100 * cell.result.relative_error for cell in CELLS["several seeds"] if cell.cell.refiner == "swaps"]
    assert len(errors) == 3
    assert shown(DRAWS) == {
        "Warm start": "wanda",
        "Refiner": "swaps",
        "Sparsity, %": "59.9",
        "Relative error, %": f"{mean(errors):.1f} ± {stdev(errors):.1f}",
        "Error reduction, %": "50.0 ± 0.0",
        "Error / Wanda's": "0.500 ± 0.000",
        "Perplexity wiki": "56.00 ± 1.00",
        "Perplexity sotu": "56.00 ± 1.00",
        "piqa, %": "64.4 ± 4.8",
        "Swaps per row": "0.450",
        "Rows at optimum, %": "100.0",
        "Time, s": "12",
        "Memory, MB": "1235",
    }


def test_times_are_means_and_memory_is_the_largest():
    cells = [pruned(seed=seed) for seed in (0, 1)]
    slow = replace(cells[1], timing=cells[1].timing.model_copy(update={"step_seconds": (20.0, 10.0)}))
    (row,) = rows_of(report([cells[0], slow]))
    assert row.values["seconds"] == pytest.approx((12.345678901234567 + 30) / 2)
    assert row.values["peak_bytes"] == 1_234_567_891
    assert not {"seconds", "peak_bytes", "sparsity"} & set(row.spreads)


def test_one_seed_has_the_values_of_its_cell_and_no_spread_but_that_of_accuracies():
    for row, cell in zip(rows_of(CASES["grid"]), CELLS["grid"], strict=True):
        assert row.values["perplexity_wiki"] == cell.result.perplexity["wiki"].value
        assert row.spreads == {"acc_piqa": 0.048}


def test_a_value_that_only_one_seed_has_is_shown_without_spread():
    without = pruned(seed=1, texts=["wiki"])
    (row,) = rows_of(report([pruned(seed=0), without]))
    assert row.values["perplexity_sotu"] == 55.0
    assert "perplexity_sotu" not in row.spreads
    assert row.spreads["perplexity_wiki"] == pytest.approx(0.5**0.5)


def test_notes_tell_how_many_seeds_and_what_the_spread_is():
    assert "seeds 0, 1, 2" in notes(DRAWS)[0]
    assert not any("seeds" in note for note in notes(CASES["grid"]))


MIXED = report([dense(), *(pruned(seed=seed) for seed in range(3)), pruned("magnitude", "none"), pruned("magnitude")])


def test_a_caption_counts_the_rows_of_several_draws():
    assert means(rows_of(MIXED)).startswith("1 of 3 ")
    assert "3 draws" in means(rows_of(DRAWS))
    assert means(rows_of(CASES["grid"])) == ""


def test_a_figure_counts_its_own_rows():
    """Unrefined rows, which the figure of errors does not show, do not count in its caption."""
    captions = {drawing.name: drawing.caption for drawing in draw(MIXED)}
    assert means(rows_of(MIXED)) in captions["perplexity"]
    assert "1 of 2 " in captions["error_reduction"]


def test_draws_are_counted_in_the_table_where_rows_differ():
    (table,) = results_tables(MIXED, costs=False)
    at = table.headings.index("Draws")
    counts = {tuple(entry.text for entry in row[:2]): row[at].text for group in table.groups for row in group.rows}
    assert counts[("wanda", "swaps")] == "3"
    assert counts[("magnitude", "swaps")] == counts[("magnitude", "none")] == "1"
    for known in (DRAWS, CASES["grid"]):
        assert "Draws" not in results_tables(known, costs=False)[0].headings


def test_rows_of_one_draw_each_are_no_means():
    known = report([pruned(seed=0), pruned("magnitude", seed=1)])
    assert means(rows_of(known)) == ""
    assert "seeds 0, 1" in notes(known)[0]


def test_findings_compare_means():
    best = "wanda + swaps has the lowest perplexity on wiki, 56.0 ± 1.0 (unrefined 111 ± 1, dense 26.0)"
    assert findings(DRAWS) == [("60% per row", f"{best}; layer error falls by 50.0% on average.")]


def test_groups_are_of_one_model_and_pattern_with_updated_weights_last():
    known = report([*CELLS["updated weights"], pruned("wanda", "none", "nm24")])
    assert [title(known, group) for group in grouped(rows_of(known))] == [
        "dense",
        "60% per row",
        "60% per row, updated weights",
        "2:4",
    ]
