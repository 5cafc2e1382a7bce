"""The artifact of a refined cell: what is written comes back, and what does not belong is refused."""

import pytest
import torch

from prunelib.errors import ArtifactError
from prunelib.masks.pruned import Pruned, pruned_identity, read_pruned, write_pruned
from prunelib.runtime import store

PROVENANCE = {"model": "abc", "tokens": "def"}
MASKS = {"a": torch.tensor([[True, False, True], [False, False, True]]), "b": torch.ones(1, 9, dtype=torch.bool)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_and_moved_weights_come_back(tmp_path, dtype):
    weight = torch.tensor([[1.0, 0, -2], [0, 0, 0]], dtype=dtype)
    write_pruned(tmp_path / "cell", Pruned(MASKS, {"a": weight}), PROVENANCE)
    found = read_pruned(tmp_path / "cell", PROVENANCE)
    assert all(torch.equal(found.masks[name], mask) for name, mask in MASKS.items())
    assert found.weights.keys() == {"a"}
    torch.testing.assert_close(found.weights["a"], weight, rtol=0, atol=0)


def test_a_mask_alone_has_no_weights_and_replaces_weights(tmp_path):
    write_pruned(tmp_path / "cell", Pruned(MASKS, {"b": torch.ones(1, 9)}), PROVENANCE)
    write_pruned(tmp_path / "cell", Pruned(MASKS, {}), PROVENANCE)
    assert read_pruned(tmp_path / "cell", PROVENANCE).weights == {}


def test_its_identity_is_of_masks_and_of_weights(tmp_path):
    mask = torch.eye(4, dtype=torch.bool)
    found = []
    for masks, weights in (
        (mask, {}),
        (mask.flip(0), {}),
        (mask, {"a": torch.eye(4)}),
        (mask, {"a": 2 * torch.eye(4)}),
    ):
        write_pruned(tmp_path / "cell", Pruned({"a": masks}, weights), {})
        found.append(pruned_identity(tmp_path / "cell"))
    assert len(set(found)) == 4


def test_weights_that_do_not_belong_are_refused(tmp_path):
    write_pruned(tmp_path / "cell", Pruned(MASKS, {}), PROVENANCE)
    path = tmp_path / "cell" / "weights.safetensors"
    for values, provenance, message in (
        ({"a": torch.ones(4)}, PROVENANCE, "a holds 4 weights, which do not fit its mask"),
        ({"c": torch.ones(4)}, PROVENANCE, "c holds 4 weights, which do not fit its mask"),
        ({"a": torch.ones(3) / 0}, PROVENANCE, "a contains NaN or infinity"),
        ({"a": torch.ones(3)}, {**PROVENANCE, "tokens": "others"}, "its tokens is 'others', but 'def' was expected"),
    ):
        store.write_tensors(path, values, "weights", provenance)
        with pytest.raises(ArtifactError, match=message):
            read_pruned(tmp_path / "cell", PROVENANCE)
