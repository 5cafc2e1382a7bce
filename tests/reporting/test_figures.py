import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from report_records import dense, drawn, grid, layers, pruned, report

from prunelib.reporting.figures import draw
from prunelib.reporting.seeds import rows_of
from prunelib.reporting.strips import by_type
from prunelib.reporting.style import INK, PALETTE, PAPER, legend, marker

TEXT = "{http://www.w3.org/2000/svg}text"


def by_name(known):
    return {drawing.name: drawing for drawing in draw(known)}


def texts(drawing):
    return [element.text for element in ET.fromstring(drawing.svg).iter(TEXT)]  # noqa: S314 - our own figure


def test_the_grid_has_all_three_figures():
    assert list(drawn("grid")) == ["perplexity", "error_reduction", "swaps"]


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("dense only", []),
        ("one cell", ["perplexity", "error_reduction", "swaps"]),
        ("no dense", ["perplexity", "error_reduction", "swaps"]),
        ("nothing refined", ["perplexity"]),
        ("no text", ["error_reduction", "swaps"]),
        ("a text in one cell only", ["perplexity", "error_reduction", "swaps"]),
        ("several models", ["perplexity", "error_reduction", "swaps"]),
        ("several refiners", ["perplexity", "error_reduction", "swaps"]),
        ("several seeds", ["perplexity", "error_reduction", "swaps"]),
        ("updated weights", ["perplexity", "error_reduction", "swaps"]),
    ],
)
def test_only_figures_with_something_to_show_are_drawn(case, names):
    assert list(drawn(case)) == names


def test_the_same_report_gives_the_same_bytes():
    assert by_name(grid()) == drawn("grid")


def test_a_users_matplotlib_settings_neither_show_nor_change():
    expected = drawn("grid")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "xtick.major.size": 12}):
        assert by_name(grid()) == expected
        assert mpl.rcParams["font.size"] == 20


def test_svg_has_no_date_and_no_program():
    for drawing in drawn("grid").values():
        assert not re.search(r"<dc:date>|Matplotlib v|<cc:Agent", drawing.svg)


def test_perplexities_are_labelled_with_their_values_and_the_dense_model():
    shown = texts(drawn("grid")["perplexity"])
    assert {"wiki", "sotu", "60% per row", "2:4", "magnitude", "wanda", "dense 26.0"} <= set(shown)
    assert shown.count("520") == shown.count("260") == 4
    assert shown.count("110") == shown.count("55.0") == 4


def test_the_axis_is_logarithmic_only_where_perplexities_lie_far_apart():
    near = report([dense(), pruned(refiner="none"), pruned()])
    assert "Perplexity, log scale" in texts(drawn("grid")["perplexity"])
    assert "Perplexity, log scale" not in texts(by_name(near)["perplexity"])


def test_layer_types_stand_in_the_order_of_the_model():
    shown = texts(drawn("grid")["error_reduction"])
    assert [text for text in shown if text and text.endswith("_proj")] == ["q_proj", "up_proj", "down_proj"]


def test_values_by_type_run_from_the_first_block_to_the_last():
    cell = pruned()
    shuffled = replace(cell, layers=cell.layers[::-1])
    assert by_type(rows_of(report([shuffled])), lambda layer: layer.loss_before)["q_proj"] == [1.0, 4.0]


def test_values_by_type_are_means_over_seeds():
    known = report([replace(pruned(seed=seed), layers=layers(6, 0.5, start)) for seed, start in ((0, 1.0), (1, 3.0))])
    assert by_type(rows_of(known), lambda layer: layer.loss_before)["q_proj"] == [2.0, 8.0]


def test_warm_starts_are_told_apart_by_colour_and_named():
    drawing = drawn("grid")["swaps"]
    assert all(colour in drawing.svg for colour in PALETTE[:2])
    assert PALETTE[2] not in drawing.svg
    assert {"magnitude", "wanda"} <= set(texts(drawing))


def test_panels_name_the_model_only_where_there_are_several():
    assert "2:4" in texts(drawn("grid")["swaps"])
    assert {"tiny: 2:4", "small: 2:4"} <= set(texts(drawn("several models")["swaps"]))


def test_refiners_are_named_where_there_are_several():
    assert "swaps" not in texts(drawn("grid")["error_reduction"])
    assert {"swaps", "swaps_t100"} <= set(texts(drawn("several refiners")["error_reduction"]))


def test_a_refiner_that_finds_no_swap_is_drawn_as_refined():
    cell, start = replace(pruned(), layers=layers(0, 0.0)), pruned(refiner="none")
    known = report([dense(), start, cell])
    _, unrefined, refined = rows_of(known)
    assert marker(known, refined, INK)["markerfacecolor"] == INK
    assert marker(known, unrefined, INK)["markerfacecolor"] == PAPER
    assert list(by_name(known)) == ["perplexity", "error_reduction"]


def test_the_caption_says_where_refinement_gains_most():
    assert "most in q_proj (50%)" in drawn("grid")["error_reduction"].caption


def test_several_seeds_make_one_marker_at_their_mean():
    shown = texts(drawn("several seeds")["perplexity"])
    assert {"111", "56.0"} <= set(shown)
    assert not {"110", "55.0", "57.0"} & set(shown)
    assert all("mean over 3 draws" in drawing.caption for drawing in drawn("several seeds").values())
    assert not any("mean over" in drawing.caption for drawing in drawn("grid").values())


@pytest.mark.parametrize("name", ["perplexity", "error_reduction"])
def test_cells_whose_weights_moved_stand_apart(name):
    shown = texts(drawn("updated weights")[name])
    assert shown.count("60% per row") == shown.count("60% per row, updated weights") == 1


def test_a_text_that_only_one_model_has_leaves_the_other_without_points():
    cells = [dense("tiny", ["wiki"]), pruned(texts=["wiki"]), pruned(model="small", texts=["sotu"])]
    shown = texts(by_name(report(cells))["perplexity"])
    assert {"tiny: wiki", "tiny: sotu", "small: wiki", "small: sotu"} <= set(shown)
    assert shown.count("dense 26.0") == 1


def test_labels_are_shown_as_written():
    known = report([dense(), pruned()], labels={"patterns": {"row60": "<b>$x$ & y"}})
    assert "<b>$x$ & y" in texts(by_name(known)["perplexity"])


def test_a_long_legend_is_read_line_by_line():
    keys = [Line2D([], [], label=str(number)) for number in range(10)]
    figure = Figure()
    legend(figure, keys)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["0", "7", "1", "8", "2", "9", "3", "4", "5", "6"]
