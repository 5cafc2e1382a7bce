"""The tables of a report as DataFrames."""

from pathlib import Path

import pytest
from report_records import CASES, grid

import prunelib
from prunelib.errors import ArtifactError
from prunelib.params import load_params
from prunelib.reporting import write_report
from prunelib.reporting.collect import reread
from prunelib.reporting.tables import results_csv, timing_csv

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("case", ["grid", "several seeds", "updated weights"])
def test_a_row_a_cell_and_a_row_a_layer(case, tmp_path):
    known = CASES[case]
    write_report(known, tmp_path)
    cells, layers = prunelib.results(tmp_path), prunelib.layer_results(tmp_path)
    assert list(cells["cell"]) == [cell["cell"] for cell in known.cells]
    assert list(layers["loss_after"]) == [layer["loss_after"] for layer in known.layers]
    assert cells["perplexity_wiki"].tolist() == [cell["perplexity_wiki"] for cell in known.cells]
    assert cells["seconds"].isna().tolist() == [cell["pattern"] is None for cell in known.cells]
    assert cells["seed"].dtype == layers["seed"].dtype == "Int64"


def test_a_report_read_back_has_the_same_tables(monkeypatch):
    monkeypatch.chdir(ROOT)
    for comparison in ("methods", "overfitting"):
        known, folder = reread(load_params(), comparison), ROOT / "reports" / comparison
        assert results_csv(known) == (folder / "results.csv").read_text(encoding="utf-8")
        assert timing_csv(known) == (folder / "timing.csv").read_text(encoding="utf-8")


def test_what_is_missing_or_no_table_is_one_line(tmp_path):
    with pytest.raises(ArtifactError, match=r"results\.csv: no such file"):
        prunelib.results(tmp_path)
    write_report(grid(), tmp_path)
    (tmp_path / "layers.csv").write_text("")
    with pytest.raises(ArtifactError, match=r"layers\.csv: not a table"):
        prunelib.layer_results(tmp_path)
    (tmp_path / "timing.csv").write_text("seconds\n1\n")
    with pytest.raises(ArtifactError, match=r"timing\.csv: not a table of a report \(no column cell\)"):
        prunelib.results(tmp_path)


def test_a_table_without_cells_is_no_report(monkeypatch, tmp_path):
    headings = (ROOT / "reports" / "results.csv").read_text(encoding="utf-8").partition("\n")[0]
    (tmp_path / "results.csv").write_text(headings)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("prunelib.workflow.paths.reports_folder", lambda _: tmp_path)
    with pytest.raises(ArtifactError, match=r"results\.csv: has no cells"):
        reread(load_params())


def test_the_committed_page_of_methods_is_small():
    assert (ROOT / "reports" / "methods" / "report.html").stat().st_size < 300_000
