import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from report_records import CASES, dense, drawn, grid, layers, pruned, report, result

from prunelib.reporting.cells import CellReport
from prunelib.reporting.costs import frontier
from prunelib.reporting.figures import draw, draw_costs
from prunelib.reporting.layer_types import means_by_type
from prunelib.reporting.rows import rows_of

SVG = "{http://www.w3.org/2000/svg}"


def by_name(known):
    return {drawing.name: drawing for drawing in draw(known)}


def texts(drawing):
    return [element.text for element in ET.fromstring(drawing.svg).iter(f"{SVG}text")]  # noqa: S314 - our own figure


def fills(drawing):
    """The fills of the marks, one each."""
    marks = [link[1] for link in ET.fromstring(drawing.svg).iter(f"{SVG}a")]  # noqa: S314 - our own figure
    return [re.search(r"fill: var\(--(\w+)\)", mark.get("style"))[1] for mark in marks]


def timed(cell, seconds):
    return replace(cell, timing=cell.timing.model_copy(update={"step_seconds": (seconds,)}))


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("grid", ["perplexity", "error_reduction", "swaps_per_row"]),
        ("dense only", []),
        ("no dense", ["perplexity", "error_reduction", "swaps_per_row"]),
        ("nothing refined", ["perplexity"]),
        ("no text", ["error_reduction", "swaps_per_row"]),
        ("a text in one cell only", ["perplexity", "error_reduction", "swaps_per_row"]),
        ("several models", ["perplexity", "error_reduction", "swaps_per_row"]),
    ],
)
def test_only_figures_with_something_to_show_are_drawn(case, names):
    assert list(drawn(case)) == names


def test_the_same_report_gives_the_same_bytes():
    assert by_name(grid()) == drawn("grid")


def test_times_stand_in_the_figure_of_costs_alone():
    slower = report([replace(timed(cell, 99.0)) if cell.timing else cell for cell in (dense(), pruned())])
    assert by_name(slower) == by_name(report([dense(), pruned()]))


def test_perplexities_are_labelled_with_their_values_and_the_dense_model():
    shown = texts(drawn("grid")["perplexity"])
    assert {"60% per row, wiki", "2:4, sotu", "magnitude", "wanda + swaps", "dense 26.0"} <= set(shown)
    assert shown.count("520") == shown.count("260") == shown.count("110") == shown.count("55.0") == 4


def test_what_is_hopeless_is_beyond_the_axis_with_its_value():
    random = pruned("random", "none")
    far = CellReport(result(random.cell, {"wiki": 8.8e7}, relative_error=0.9, error_reduction=0.0), random.layers)
    drawing = by_name(report([dense(), pruned(refiner="none"), pruned(), far], texts=("wiki",)))["perplexity"]
    assert "8.80e+07" in texts(drawing)
    numbers = [float(text) for text in texts(drawing) if re.fullmatch(r"[\d.]+", text or "")]
    assert len([number for number in numbers if number <= 200]) >= 4  # values and ticks


def test_marks_lead_to_their_cells_and_say_their_values():
    (panel,) = drawn("one cell")["error_reduction"].panels
    link = next(ET.fromstring(panel.svg).iter(f"{SVG}a"))  # noqa: S314 - our own figure
    assert link.get("href") == "#tiny-row60-wanda-swaps"
    assert link.get("id") == "error_reduction-tiny-row60-wanda-swaps"
    assert {"wanda + swaps", "error reduction 50.0%"} <= set(link.findtext(f"{SVG}title").split("; "))


def test_ids_are_unique_within_all_figures():
    found = re.findall(r' id="([^"]+)"', "".join(drawing.svg for drawing in drawn("several models").values()))
    assert len(found) == len(set(found))


def test_a_caption_says_how_many_rows_are_means():
    assert all("3 draws" in drawing.caption for drawing in drawn("several seeds").values())
    assert "mean over 3 draws" in drawn("several seeds")["perplexity"].svg


def test_layer_types_stand_in_the_order_of_the_model():
    shown = texts(drawn("grid")["error_reduction"])
    assert [text for text in shown if text and text.endswith("_proj")][:3] == ["q_proj", "up_proj", "down_proj"]


def test_values_by_type_are_means_over_the_layers_of_a_type():
    known = report([pruned()])
    assert means_by_type(known.layers, "loss_before")["tiny-0-row60-wanda-swaps"]["q_proj"] == 2.5


def test_a_refiner_that_finds_no_swap_is_drawn_as_refined():
    cell, start = replace(pruned(), layers=layers(0, 0.0)), pruned(refiner="none")
    assert fills(by_name(report([dense(), start, cell], texts=("wiki",)))["perplexity"]) == ["mask", "paper"]


def test_updated_weights_have_a_mark_of_their_own():
    assert "updated" in fills(drawn("updated weights")["perplexity"])
    assert "updated" not in fills(drawn("grid")["perplexity"])


def test_labels_are_shown_as_written():
    known = report([dense(), pruned()], labels={"patterns": {"row60": "<b>$x$ & y"}})
    assert "<b>$x$ & y, wiki" in texts(by_name(known)["perplexity"])


def test_the_frontier_is_what_nothing_undercuts():
    slow, fast, worse = (timed(pruned(start), s) for start, s in (("wanda", 9), ("ria", 3), ("magnitude", 5)))
    better = replace(slow, result=slow.result.model_copy(update={"relative_error": 0.01}))
    rows = frontier(rows_of(report([better, fast, worse])))
    assert [row.cell.warmstart for row in rows] == ["ria", "wanda"]


def test_costs_have_a_panel_for_each_pattern_with_several_times():
    assert len(draw_costs(grid()).panels) == 2
    assert draw_costs(CASES["one cell"]) is None
