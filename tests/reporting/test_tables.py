import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from report_records import CASES, CELLS, DENSE, dense, grid, layers, pruned, reconstructed, report
from rich.console import Console

from prunelib.records import StepResult, Timing
from prunelib.reporting import render
from prunelib.reporting.digits import percent, percent_at_most, percent_reached, plus_minus, significant
from prunelib.reporting.notes import notes
from prunelib.reporting.report import as_line, as_text
from prunelib.reporting.rows import rows_of
from prunelib.reporting.tables import (
    layers_csv,
    main_tables,
    metrics_json,
    results_csv,
    results_markdown,
    results_tables,
    timing_csv,
)
from prunelib.reporting.terminal import print_tables


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def lines(markdown):
    """The rows of the first Markdown table, as lists of stripped cells, without the rule below the heading."""
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows[:1] + rows[2:]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(25.94, "25.9"), (3486.4, "3486"), (0.09312, "0.0931"), (0.0, "0"), (-1.5, "-1.50"), (1.2e-9, "1.20e-09")],
)
def test_significant_keeps_what_is_before_the_point(value, text):
    assert significant(value) == text


@given(st.floats(1e-5, 1e6))
def test_significant_is_within_half_a_unit_of_its_last_digit(value):
    text = significant(value)
    assert math.isclose(float(text), value, rel_tol=0.005)
    assert "e" not in text


@example(0.99999)
@given(st.fractions(0, 1).map(float))
def test_only_a_whole_share_reads_100(share):
    assert (percent_reached(share) == "100.0") == (share == 1)


def test_percent_has_no_negative_zero():
    assert percent(-0.0001) == "0.0"


@given(st.fractions(0, 1).map(float))
def test_a_share_that_is_an_upper_limit_is_not_rounded_below_it(share):
    assert -1e-9 <= float(percent_at_most(share)) - 100 * share < 0.1 + 1e-9


def test_an_upper_limit_has_no_negative_zero():
    assert percent_at_most(-1e-9) == "0.0"


def test_a_spread_has_the_decimals_of_its_mean():
    assert plus_minus("88.42", 1.3456) == "88.42 ± 1.35"
    assert plus_minus("3443", 120.6) == "3443 ± 121"


def test_results_csv_holds_every_figure_exactly():
    cells = CELLS["grid"]
    rows = read(results_csv(grid()))
    assert [row["cell"] for row in rows] == [cell.cell.key for cell in cells]
    for row, cell in zip(rows, cells, strict=True):
        assert float(row["perplexity_wiki"]) == cell.result.perplexity["wiki"].value
        assert float(row["acc_piqa"]) == cell.result.tasks["piqa"].acc
        assert float(row["acc_stderr_piqa"]) == cell.result.tasks["piqa"].acc_stderr
        assert float(row["sparsity"]) == cell.result.sparsity
        assert row["relative_error"] == ("" if cell.dense else repr(cell.result.relative_error))


def test_what_refining_cost_is_in_files_of_its_own():
    cells = CELLS["grid"]
    (row, *others) = read(timing_csv(grid()))
    assert [row["cell"], *(other["cell"] for other in others)] == [cell.cell.key for cell in cells if not cell.dense]
    assert (row["seconds"], row["peak_bytes"], row["machine"]) == ("12.345678901234567", "1234567890", "one of ours")
    files = render(grid())
    slower = Timing(layers_sha256="", step_seconds=(99.0,), peak_bytes=7, machine="another")
    others = render(report([cell if cell.dense else replace(cell, timing=slower) for cell in cells]))
    assert {name for name in files if files[name] != others[name]} == {"timing.csv", "report.html"}


def test_a_cell_whose_cost_is_not_known_has_an_empty_one():
    known = read(timing_csv(report([dense(), replace(pruned(), timing=None)])))
    assert [set(row.values()) - {row["cell"]} for row in known] == [{""}]


def test_a_terminal_gets_errors_perplexities_and_times():
    (table,) = main_tables(grid())
    headings = [heading.split("\N{NO-BREAK SPACE}")[0] for heading in table.headings]
    assert headings == ["Warm start", "Refiner", "Relative error, %", "Perplexity wiki", "Perplexity sotu", "Time, s"]


def test_results_csv_has_the_same_columns_whatever_is_known_of_the_cells():
    full, sparse = read(results_csv(grid())), read(results_csv(report([dense()])))
    assert list(full[0]) == list(sparse[0])
    assert sparse[0]["swaps_per_row"] == sparse[0]["pattern"] == ""


def test_cells_are_named_by_their_seed_too():
    rows = read(results_csv(CASES["several seeds"]))
    assert [row["cell"] for row in rows[:3]] == ["tiny-dense", "tiny-0-row60-wanda-none", "tiny-0-row60-wanda-swaps"]
    assert [row["seed"] for row in rows] == ["", "0", "0", "1", "1", "2", "2"]
    assert len({row["cell"] for row in rows}) == len(rows)


def test_csv_tells_whose_weights_moved():
    known = CASES["updated weights"]
    expected = ["false", "false", "true", "true", "false"]
    assert [row["updated"] for row in read(results_csv(known))] == expected
    assert [row["updated"] for row in read(layers_csv(known))][::6] == expected[1:]


def chained(**timing):
    """A cell whose two steps leave 0.8 and 0.5 of the warm start's error."""
    made = [
        layer.model_copy(update={"steps": [step("sparsefw", 0.8, layer), step("sparseswaps", 0.5, layer)]})
        for layer in layers(6, 0.5)
    ]
    return replace(pruned(), layers=made, **timing)


def step(method, left, layer):
    return StepResult(method=method, loss_after=left * layer.loss_before)


def test_the_steps_of_a_chain_are_told_with_what_they_left_and_took():
    timed = chained(timing=Timing(layers_sha256="", step_seconds=(12.34, 140.0), peak_bytes=1, machine=""))
    known = report([timed, chained(timing=None), pruned()])
    rows, costs = read(results_csv(known)), read(timing_csv(known))
    assert [row["steps"] for row in rows] == ["sparsefw 0.800 > sparseswaps 0.500"] * 2 + [""]
    assert [row["step_seconds"] for row in costs] == ["12.34 > 140.00", "", "12.35"]
    assert costs[0]["seconds"] == "152.34"
    assert "steps" not in read(layers_csv(report([timed])))[0]
    told = "over all layers: 60% per row, wanda, swaps: sparsefw 0.800 > sparseswaps 0.500."
    assert any(note.startswith("Chains") and note.endswith(told) for note in notes(report([timed, pruned()])))
    assert not any(note.startswith("Chains") for note in notes(report([pruned()])))


def test_a_terminal_of_80_columns_shows_whole_words_and_numbers():
    stream = io.StringIO()
    print_tables(grid(), Console(file=stream, width=80))
    shown = stream.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for part in ("60% per row", "Perplexity", "Relative", "Time, s", "magnitude", f"{DENSE:.2f}"):
        assert part in shown


@pytest.mark.parametrize(("least", "told"), [(5, "7 to 7 of them."), (8, "12 of 12 received fewer than 8")])
def test_what_experts_saw_is_told_and_how_many_saw_too_little(least, told):
    routed = report([pruned(tokens=7), pruned("magnitude", tokens=7)], settings={"calibration": {"min_tokens": least}})
    (note,) = (note for note in notes(routed) if note.startswith("Experts"))
    assert told in note
    assert ("independent" in note) == (least == 8)


@pytest.mark.parametrize("share", [None, 0.5])
def test_a_share_of_dense_targets_is_told(share):
    settings = {} if share is None else {"dense_target": share}
    told = [note for note in notes(report([pruned()], settings={"calibration": settings})) if "make up for 0.5" in note]
    assert len(told) == (share is not None)


def test_texts_and_tasks_stand_in_the_order_of_the_report():
    known = report([dense()], texts=("sotu", "unseen", "wiki"))
    columns = [name for name in read(results_csv(known))[0] if name.startswith("perplexity")]
    assert columns == ["perplexity_sotu", "perplexity_unseen", "perplexity_wiki"]
    assert "unseen" not in results_markdown(known)


def test_layers_csv_has_a_row_for_each_layer_of_each_cell():
    rows = read(layers_csv(grid()))
    expected = [(cell.cell.key, layer) for cell in CELLS["grid"] for layer in cell.layers]
    assert len(rows) == len(expected)
    for row, (key, layer) in zip(rows, expected, strict=True):
        assert (row["cell"], row["name"], row["kind"], int(row["block"])) == (key, layer.name, layer.kind, layer.block)
        assert float(row["loss_after"]) == layer.loss_after
        assert float(row["error_reduction"]) == layer.error_reduction
        assert row["swaps_per_row"] == ("" if layer.swaps is None else repr(layer.swaps / layer.rows))


def test_swaps_per_row_weigh_layers_by_their_rows():
    cell = pruned()
    assert cell.swaps_per_row == 6 * 6 / (2 * (8 + 24 + 8))
    assert cell.optimal_share == 1


def test_a_mask_that_its_refiner_left_as_it_was_is_refined_too():
    unrefined = pruned(refiner="none")
    cells = [pruned(), replace(unrefined, layers=layers(0, 0.0)), pruned("ria", "none"), dense()]
    assert [row.refined for row in rows_of(report(cells))] == [True, True, False, False]


def test_a_layer_without_a_count_leaves_the_cell_without_one():
    mixed = replace(pruned(), layers=[*layers(6, 0.5), *layers(None, 0.5)])
    assert mixed.swaps_per_row is None
    assert dense().swaps_per_row is None


def test_markdown_shows_each_cell_under_its_pattern():
    heading, first, *others = lines(results_markdown(grid()))
    assert heading[:4] == ["Pattern", "Warm start", "Refiner", "Sparsity, %"]
    assert first[:3] == ["dense", "–", "–"]
    assert [row[0] for row in others] == ["60% per row", "", "", "", "2:4", "", "", ""]
    assert [row[1:3] for row in others[:2]] == [["magnitude", "none"], ["magnitude", "swaps"]]
    shown = dict(zip((title.replace("\N{NO-BREAK SPACE}", " ") for title in heading), others[1], strict=True))
    assert shown == {
        "Pattern": "",
        "Warm start": "magnitude",
        "Refiner": "swaps",
        "Sparsity, %": "59.9",
        "Relative error, % ↓": "**17.5**",
        "Error reduction, %": "50.0",
        "Error / Wanda's ↓": "**0.500**",
        "Perplexity wiki ↓": "260.0",
        "Perplexity sotu ↓": "260.0",
        "piqa, % ↑": "44.0 ± 4.8",
        "Swaps per row": "0.450",
        "Rows at optimum, %": "100.0",
    }


def test_the_best_of_each_pattern_is_bold_and_ties_share_it():
    table = results_tables(grid(), costs=True)[0]
    column = {heading.split(",")[0]: index for index, heading in enumerate(table.headings)}
    for group in table.groups[1:]:
        best = {name: [row[index].best for row in group.rows] for name, index in column.items()}
        assert best["Relative error"] == [False, True, False, True]
        assert not any(best["piqa"])  # the next is within its standard error
        assert not any(best["Error reduction"] + best["Time"])


def test_a_row_alone_in_its_group_is_not_called_best():
    tables = results_tables(report([dense(), pruned()]), costs=True)
    assert not any(entry.best for group in tables[0].groups for row in group.rows for entry in row)


def test_cells_whose_weights_moved_are_a_group_with_its_own_best():
    (table,) = results_tables(CASES["updated weights"], costs=True)
    assert [group.title for group in table.groups] == ["dense", "60% per row", "60% per row, updated weights"]
    assert [[row[1].text for row in group.rows] for group in table.groups[1:]] == [["none", "swaps"], ["refit"] * 2]
    perplexity = table.headings.index("Perplexity wiki\N{NO-BREAK SPACE}↓")
    assert [[row[perplexity].best for row in group.rows] for group in table.groups[1:]] == [[False, True]] * 2
    assert any(note.startswith("Updated weights") for note in notes(CASES["updated weights"]))
    assert not any(note.startswith("Updated weights") for note in notes(grid()))


def test_columns_without_any_value_are_left_out():
    headings = results_tables(report([dense(), replace(pruned(refiner="none"), timing=None)]), costs=True)[0].headings
    assert not {"Swaps per row", "Rows at optimum, %", "Time, s", "Memory, MB"} & set(headings)


def test_every_model_has_its_own_table():
    assert [table.model for table in results_tables(CASES["several models"], costs=True)] == ["tiny", "small"]


def test_a_pipe_in_a_label_does_not_cut_the_row():
    known = report([dense(), pruned()], labels={"patterns": {"row60": "a|b"}})
    assert "| a\\|b | wanda |" in results_markdown(known)


def test_notes_state_tokens_windows_items_and_versions():
    text = " ".join(notes(grid()))
    assert "Perplexity wiki: exp of the mean loss over 8,176 predicted tokens in 16 windows" in text
    assert "piqa (version 1.0, 100 items)" in text


def test_notes_give_all_counts_where_models_differ():
    longer = dense("small")
    wiki = longer.result.perplexity["wiki"].model_copy(update={"tokens": 8192})
    changed = longer.result.model_copy(update={"perplexity": {"wiki": wiki}})
    text = " ".join(notes(report([dense(), replace(longer, result=changed)])))
    assert "8,176 or 8,192 predicted tokens" in text


def covered(cell, share):
    """The cell of a model whose prunable layers hold only this share of its blocks' matrix weights."""
    return replace(cell, result=cell.result.model_copy(update={"coverage": share}))


def test_a_part_of_the_blocks_that_stays_dense_is_told():
    models = [
        dense(),
        covered(dense("small"), 0.8329),
        covered(pruned(model="small"), 0.8329),
        covered(dense("s"), 0.9999),
    ]
    known = report(models, labels={"models": {"s": "the third"}})
    assert [row["coverage"] for row in read(results_csv(known))] == ["1.0", "0.8329", "0.8329", "0.9999"]
    told = (
        "Only linear layers are pruned and counted: of the blocks' matrix weights 83.2% in small, 99.9% in the third."
    )
    assert notes(known)[0].endswith(told)
    assert told in results_markdown(known)
    assert not any("linear layers" in note for note in notes(grid()))


def test_settings_read_as_in_params():
    assert as_line({"source": "wheel", "members": ["a", "b"], "every": 5}) == "source wheel · members a, b · every 5"
    assert [as_text(value) for value in (None, True, 0.5, (1, "x"), [])] == ["null", "true", "0.5", "1, x", ""]


@pytest.mark.parametrize("known", CASES.values(), ids=CASES.keys())
def test_csv_has_a_row_for_each_cell_and_tables_one_for_all_its_seeds(known):
    assert len(read(results_csv(known))) == len(known.cells)
    combinations = {tuple(cell[name] for name in ("model", "pattern", "warmstart", "refiner")) for cell in known.cells}
    rows = [row for table in results_tables(known, costs=True) for group in table.groups for row in group.rows]
    assert len(rows) == len(combinations)


def test_dense_perplexity_reads_with_two_decimals():
    assert f"{DENSE:.2f}" in lines(results_markdown(grid()))[1]


def test_the_notes_count_the_prompts_that_were_cut():
    cell = pruned()
    task = cell.result.tasks["piqa"].model_copy(update={"truncated_items": 7, "truncated_tokens": 1234})
    cut = replace(cell, result=cell.result.model_copy(update={"tasks": {"piqa": task}}))
    (note,) = (note for note in notes(report([cut])) if "piqa" in note)
    assert " 7 " in note
    assert "1,234 tokens" in note
    (note,) = (note for note in notes(report([cell])) if "piqa" in note)
    assert "cut" not in note


MARKUP = "<img src=x> [here](javascript:a) `b` *c* |e\n\n# A heading"


def test_no_name_and_no_attribution_is_markup():
    labels = {section: {name: MARKUP} for section, name in {"patterns": "row60", "models": "tiny"}.items()}
    labels |= {"warmstarts": {"wanda": MARKUP}, "refiners": {"swaps": MARKUP}}
    known = report([dense(), pruned()], labels=labels, provenance={MARKUP: MARKUP})
    text = results_markdown(known)
    assert text.count("here") >= 6
    assert not re.search(r"<img|\]\(|(?<!\\)(\[here|`b|\|e)|[^*\\]\*c|\n# A heading", text)
    stream = io.StringIO()
    print_tables(report([dense(), pruned()], labels={"models": {"tiny": "[red]x"}}), Console(file=stream, width=80))
    assert "[red]x" in stream.getvalue()


@pytest.mark.parametrize("section", ["models", "texts", "warmstarts", "refiners"])
def test_a_label_is_that_of_its_section(section):
    names = {"models": "tiny", "texts": "wiki", "warmstarts": "wanda", "refiners": "swaps"}
    known = report([dense(), pruned()], labels={"patterns": {names[section]: "50% per row"}})
    assert known.label(section, names[section]) == names[section]
    files = render(known)
    assert not any("50% per row" in text for text in files.values())
    assert (
        "50% per row"
        in render(report([dense(), pruned()], labels={"patterns": {"row60": "50% per row"}}))["results.md"]
    )


def test_reconstructed_blocks_are_a_group_of_their_own_with_the_error_of_blocks():
    cells = [dense(), pruned(refiner="swaps"), pruned(refiner="refit", updated=True), reconstructed()]
    shown = report(cells)
    (table,) = results_tables(shown, costs=False)
    titles = [group.title for group in table.groups]
    assert [title.rpartition(", ")[2] for title in titles[2:]] == ["updated weights", "blocks reconstructed"]
    column = next(number for number, heading in enumerate(table.headings) if heading.startswith("Block error"))
    assert [group.rows[0][column].text for group in table.groups] == ["–", "–", "–", "12.5"]
    row = read(results_csv(shown))[-1]
    assert (row["block_error"], row["relative_error"], row["error_vs_wanda"]) == ("0.125", "", "")
    assert {layer["relative_error"] for layer in read(layers_csv(shown)) if layer["refiner"] == "reconstruct"} == {""}
    assert json.loads(metrics_json(shown))[row["cell"]]["block_error"] == 0.125
    assert any("blocks reconstructed" in note.lower() for note in notes(shown))


def test_no_time_is_cut_off_in_a_terminal_of_eighty_columns():
    labels = {
        "patterns": {"row60": "60% per row"},
        "texts": {"wiki": "Wikipedia", "sotu": "State of the Union"},
        "warmstarts": {"magnitude": "Magnitude"},
        "refiners": {"swaps": "SparseSwaps"},
    }
    stream = io.StringIO()
    print_tables(report([dense(), pruned("magnitude")], labels=labels), Console(file=stream, width=80))
    row = next(line for line in stream.getvalue().splitlines() if "SparseSwaps" in line)
    assert row.split()[-1] == "12"
