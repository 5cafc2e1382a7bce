"""What decides the masks of a cell."""

from pathlib import Path

import pytest
import torch

from prunelib.calibration.artifact import write_tokens
from prunelib.cell import Cell
from prunelib.errors import ArtifactError
from prunelib.masks.pruned import Pruned, read_pruned, write_pruned
from prunelib.params import load_params
from prunelib.runtime import store
from prunelib.workflow import identities, paths

ROOT = Path(__file__).parents[2]
CELL = Cell(model="smollm2_135m", seed=3, pattern="nm24", warmstart="ria", refiner="swaps")


@pytest.fixture
def calibrated(tmp_path, monkeypatch):
    """A folder with a model's identity and two calibration tokens, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    model = {"checksums": {}, "sha256": "of the model"}
    store.write_record(paths.model_folder("smollm2_135m") / "provenance.json", "model", model)
    tokens = torch.tensor([[1, 2]], dtype=torch.int32)
    drawn_from = {"model": "of the model", "settings": load_params(ROOT / "params.yaml").calibration.model_dump()}
    return write_tokens(paths.calibration_folder(CELL), tokens, tokens[:0], drawn_from)


def test_masks_of_other_calibration_tokens_are_refused(calibrated):
    params = load_params(ROOT / "params.yaml")
    expected = identities.made_from(params, CELL)
    assert expected == {
        "model": "of the model",
        "tokens": calibrated,
        "calibration": {"inputs": "dense", "batch": 4, "shards": 1, "min_tokens": 64},
        "pattern": {"kind": "n_of_m", "keep": 2, "group": 4},
        "warmstart": {"method": "ria", "exponent": 0.5},
        "refiner": params.refiners["swaps"].model_dump(mode="json"),
    }
    folder, pruned = paths.refined_folder(CELL), Pruned({"layer": torch.tensor([[True, False]])}, {})
    write_pruned(folder, pruned, expected)
    assert torch.equal(read_pruned(folder, expected).masks["layer"], pruned.masks["layer"])
    write_pruned(folder, pruned, {**expected, "tokens": "others"})
    with pytest.raises(ArtifactError, match=r"nm24-ria-swaps/masks\.safetensors: its tokens is 'others', but"):
        read_pruned(folder, identities.made_from(params, CELL))
