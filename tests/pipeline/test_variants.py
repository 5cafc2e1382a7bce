"""The whole pipeline, to the report, where it goes another way: experts, uneven budgets, inputs that come about."""

import csv

import pytest
from families import save, tiny_model
from pipeline_project import character_tokenizer

pytestmark = pytest.mark.slow


def rows(project, name):
    with (project.folder / "reports" / name).open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_experts_with_owls_budgets_reach_the_report(project):
    folder = project.folder / "given" / "experts"
    save(tiny_model("mixtral"), folder)
    character_tokenizer().save_pretrained(folder)
    owl = {"method": "owl", "outlier": 3, "spread": 0.2}
    project.edit("models.tiny.path", "given/experts")
    project.edit("patterns.row50", {"kind": "per_row", "sparsity": 0.5, "allocation": owl})
    project.edit("grid.patterns", ["row50"])
    project.repro()
    dense, start, swapped = rows(project, "results.csv")
    assert float(start["sparsity"]) == float(swapped["sparsity"]) == pytest.approx(0.5, abs=0.02)
    assert all(float(cell["perplexity_ours"]) > 1 for cell in (dense, start, swapped))
    layers = [layer for layer in rows(project, "layers.csv") if layer["refiner"] == "swaps"]
    assert len({layer["name"] for layer in layers if "expert" in layer["name"]}) == 2 * 4 * 3
    kept = [int(layer["kept"]) / (int(layer["rows"]) * int(layer["inputs"])) for layer in layers]
    assert max(kept) - min(kept) > 0.05
    assert "- Experts: each matrix is calibrated on the tokens routed to it" in (
        project.folder / "reports" / "results.md"
    ).read_text(encoding="utf-8")


def test_weights_that_make_up_for_changed_inputs_reach_the_report(project):
    project.edit("calibration.inputs", "true_sequential")
    project.edit("calibration.dense_target", 0.5)
    project.repro()
    dense, *cells = rows(project, "results.csv")
    assert dense["updated"] == "false"
    assert {cell["updated"] for cell in cells} == {"true"}
    report = (project.folder / "reports" / "results.md").read_text(encoding="utf-8")
    assert "make up for 0.5" in report


@pytest.mark.parametrize("inputs", ["sequential", "true_sequential"])
def test_inputs_that_come_about_reach_the_report(project, inputs):
    before = rows(project, "results.csv")
    project.edit("calibration.inputs", inputs)
    project.repro()
    after = rows(project, "results.csv")
    assert [cell["cell"] for cell in after] == [cell["cell"] for cell in before]
    assert after[0] == before[0]
    assert all(float(cell["relative_error"]) > 0 for cell in after[1:])
    assert all(new["perplexity_ours"] != old["perplexity_ours"] for new, old in zip(after[1:], before[1:], strict=True))
