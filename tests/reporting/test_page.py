import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_records import CASES, CELLS, PROMPT, WRITTEN, dense, drawn, grid, layers, pruned, report

from prunelib.errors import ArtifactError
from prunelib.reporting import render, update_costs, write_report
from prunelib.reporting.page import findings, html

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def ids(self):
        return " ".join(value for name, value in self.attributes if name == "id")

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


def page(case):
    return html(CASES[case], list(drawn(case).values()))


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_well_formed_and_loads_nothing(case):
    whole = page(case)
    parsed = Page(whole)
    assert parsed.tags.count("script") == 1
    references = [
        value for name, value in parsed.attributes if name.split(":")[-1] in {"src", "href", "srcset", "data"}
    ]
    assert all(reference.startswith("#") for reference in references)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", whole))
    assert "@import" not in whole


def test_ids_are_unique_and_references_inside_the_page_resolve():
    whole = page("grid")
    ids = [value for name, value in Page(whole).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:url\(|href=")#([^)"]+)', whole)
    assert targets
    assert set(targets) <= set(ids)


def test_every_figure_is_inside_with_its_caption():
    parsed = Page(page("grid"))
    assert parsed.tags.count("figcaption") == 4
    assert parsed.tags.count("svg") == 2 + sum(len(drawing.panels) for drawing in drawn("grid").values())


def test_rows_and_marks_lead_to_each_other():
    ids = {value for name, value in Page(page("grid")).attributes if name == "id"}
    row = "tiny-row60-wanda-swaps"
    assert {row, f"costs-{row}"} <= ids
    assert f'href="#{row}"' in page("grid")
    assert f'href="#costs-{row}"' in page("grid")


def test_a_page_without_times_has_no_figure_of_costs():
    untimed = report([replace(cell, timing=None) for cell in CELLS["grid"]])
    assert "point-" not in Page(html(untimed, [])).ids()


def test_settings_and_provenance_are_shown_as_in_params():
    texts = Page(page("grid")).texts
    for text in ("a tiny model", "dvc repro", "calibration", "refiners.swaps", "refiners.none", "null", "0"):
        assert text in texts
    assert texts[texts.index("refiners.none") + 1] == "defaults"


def test_the_steps_of_a_chain_are_sections_of_their_own():
    chain = {"method": "chain", "chain": [{"method": "sparsefw", "alpha": 0.9}, {"method": "sparseswaps"}]}
    texts = Page(render(report([dense()], settings={"refiners": {"fw_swaps": chain}}))["report.html"]).texts
    assert texts[texts.index("refiners.fw_swaps") :][:3] == ["refiners.fw_swaps", "method", "chain"]
    first, second = (texts.index(f"refiners.fw_swaps.chain.{number}") for number in (1, 2))
    assert texts[first + 1 : second] == ["method", "sparsefw", "alpha", "0.9"]
    assert texts[second + 1 : second + 3] == ["method", "sparseswaps"]


def test_the_page_says_whether_weights_have_moved():
    updated, alone = (Page(page(case)).texts for case in ("updated weights", "grid"))
    assert any("except in the groups of rows titled" in text for text in updated)
    assert any(text.endswith("Kept weights are unchanged.") for text in alone)


def test_findings_keep_updated_weights_apart():
    anchors = "55.0 (unrefined 110, dense 26.0); layer error falls by 50.0% on average."
    assert findings(CASES["updated weights"]) == [
        ("60% per row", f"wanda + swaps has the lowest perplexity on wiki, {anchors}"),
        ("60% per row, updated weights", f"wanda + refit has the lowest perplexity on wiki, {anchors}"),
    ]


def test_the_page_tells_of_a_part_that_stays_dense():
    cell = pruned()
    partly = replace(cell, result=cell.result.model_copy(update={"coverage": 0.75}))
    assert any("matrix weights 75.0% in tiny." in text for text in Page(render(report([partly]))["report.html"]).texts)


def test_names_are_escaped():
    known = report(
        [dense(), pruned()],
        labels={"patterns": {"row60": "<script>alert(1)</script>"}},
        provenance={"Command": "a < b & c"},
        settings={"x": {"y": "<i>"}},
    )
    parsed = Page(render(known)["report.html"])
    assert parsed.tags.count("script") == 1
    assert "<script>alert(1)</script>" in parsed.texts
    assert "a < b & c" in parsed.texts


def test_samples_are_shown_escaped():
    parsed = Page(page("one cell"))
    assert parsed.texts.count(WRITTEN) == 2
    assert f"{PROMPT} …" in parsed.texts


def test_a_page_without_prompts_has_no_samples():
    assert "dl" not in Page(html(report(CELLS["one cell"], prompts=()), [])).tags


def test_findings_name_the_best_mask_and_what_it_is_measured_against():
    best = "wanda + swaps has the lowest perplexity on wiki, 55.0 (unrefined 110, dense 26.0)"
    sentence = f"{best}; layer error falls by 50.0% on average."
    assert findings(grid()) == [("60% per row", sentence), ("2:4", sentence)]


def test_findings_compare_only_with_what_was_run():
    assert findings(CASES["nothing refined"]) == [
        ("60% per row", "wanda has the lowest perplexity on wiki, 110 (dense 26.0).")
    ]
    assert findings(CASES["no text"]) == findings(CASES["dense only"]) == []


def test_findings_do_not_call_a_mask_without_a_better_swap_unrefined():
    start = pruned(refiner="none")
    same = replace(pruned(), layers=layers(0, 0.0), result=start.result.model_copy(update={"cell": pruned().cell}))
    (found,) = findings(report([same, start]))
    assert found[1].startswith("wanda + swaps has the lowest perplexity on wiki, 110 (unrefined 110)")
    assert found[1].endswith("; layer error falls by 0.0% on average.")


def test_findings_name_the_model_where_there_are_several():
    assert [heading for heading, _ in findings(CASES["several models"])][::2] == [
        "tiny: 60% per row",
        "small: 60% per row",
    ]


def test_write_puts_every_file_in_the_folder_with_the_same_bytes_each_time(tmp_path):
    write_report(grid(), tmp_path / "reports")
    expected = render(grid())
    figures = {"figures/error_reduction.svg", "figures/perplexity.svg", "figures/swaps_per_row.svg"}
    assert set(expected) == {
        "results.csv",
        "layers.csv",
        "metrics.json",
        "samples.json",
        "results.md",
        "timing.csv",
        "report.html",
        *figures,
    }
    for name, text in expected.items():
        assert (tmp_path / "reports" / name).read_text(encoding="utf-8") == text


def test_other_costs_alone_change_the_page_and_the_times(tmp_path):
    known, none = grid(), report([dense(), replace(pruned(), timing=None)])
    write_report(known, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    update_costs(known, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    update_costs(none, tmp_path)
    changed = {path.name for path in written if path.stat().st_mtime_ns != written[path]}
    assert changed == {"timing.csv", "report.html"}
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(none)["report.html"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(ArtifactError, match=r"results\.csv: cannot be written \(No space left on device\)"):
        write_report(report([dense()]), tmp_path)


def test_a_cell_without_timing_and_layers_is_reported():
    bare = replace(pruned(), layers=(), timing=None)
    assert "wanda" in Page(render(report([dense(), bare]))["report.html"]).texts
