"""A call and a command on the model of a project that has run: the masks of its stages, bit for bit."""

import pytest
import torch

from prunelib import read_masks
from prunelib.model.structure import load_model, load_tokenizer
from prunelib.pruning.in_memory import prune
from prunelib.sources.documents import read_documents

pytestmark = pytest.mark.slow
CALIBRATION = {"samples": 6, "length": 16, "batch": 4}


@pytest.mark.parametrize(("name", "pattern"), [("row50", "50%"), ("nm24", "2:4")])
@pytest.mark.parametrize("refiner", ["none", "swaps"])
def test_the_call_gives_the_masks_of_the_stages(finished, name, pattern, refiner):
    artifacts = finished.folder / "artifacts"
    folder = artifacts / "models" / "tiny"
    model, tokenizer = load_model(folder, "float32", "cpu"), load_tokenizer(folder)
    documents = [document.text for document in read_documents(artifacts / "texts" / "ours", "calibration")]
    method = "none" if refiner == "none" else {"method": "sparseswaps", "max_swaps": None}
    result = prune(model, tokenizer, documents, pattern, "wanda", method, **CALIBRATION, progress=False)
    expected = read_masks(artifacts / "refined" / "tiny" / "0" / f"{name}-wanda-{refiner}" / "masks.safetensors")
    assert result.masks.keys() == expected.keys()
    assert all(torch.equal(mask, expected[layer]) for layer, mask in result.masks.items())


def test_one_cell_is_run_by_its_name(project):
    project.edit("calibration.samples", 5)
    output = project.command("prunelib", "run", "--cell", "tiny-0-nm24-wanda-swaps")
    assert "evaluate@tiny-0-nm24-wanda-swaps" in output
    assert "row50" not in output
    assert "report" not in output
    refused = project.command("prunelib", "run", "--cell", "tiny-0-nm24-wanda-swap", fails=True)
    assert "did you mean tiny-0-nm24-wanda-swaps" in refused
