import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunelib.errors import ArtifactError, PatternError
from prunelib.masks.packed import read_masks, write_masks
from prunelib.runtime import store

PROVENANCE = {"model": "abc", "tokens": "def"}


@given(rows=st.integers(1, 5), inputs=st.integers(1, 40), seed=st.integers(0, 1000))
def test_masks_come_back_for_any_width(tmp_path_factory, rows, inputs, seed):
    path = tmp_path_factory.mktemp("masks") / "m.safetensors"
    masks = {
        name: torch.rand(rows, inputs, generator=torch.Generator().manual_seed(seed)) > 0.5 for name in ("a", "b.c")
    }
    write_masks(path, masks, PROVENANCE)
    found = read_masks(path, PROVENANCE)
    assert sorted(found) == ["a", "b.c"]
    for name, mask in masks.items():
        torch.testing.assert_close(found[name], mask)


def test_a_mask_takes_one_bit_a_weight(tmp_path):
    write_masks(tmp_path / "m", {"a": torch.ones(1000, 800, dtype=torch.bool)}, PROVENANCE)
    assert (tmp_path / "m").stat().st_size < 1000 * 800 / 8 + 1000


def test_a_mask_of_another_model_is_refused(tmp_path):
    write_masks(tmp_path / "m", {"a": torch.ones(1, 8, dtype=torch.bool)}, PROVENANCE)
    with pytest.raises(ArtifactError, match="its model is 'abc', but 'xyz' was expected"):
        read_masks(tmp_path / "m", {"model": "xyz"})


@pytest.mark.parametrize("shapes", [{}, {"a": [2, 8]}, {"a": [1, 9]}, {"a": [1, 8], "b": [1, 8]}])
def test_shapes_that_differ_from_the_header_are_refused(tmp_path, shapes):
    header = {"shapes": shapes, "kept": {"a": 2, "b": 2}}
    store.write_tensors(tmp_path / "m", {"a": torch.tensor([[0b11000000]], dtype=torch.uint8)}, "mask", header)
    with pytest.raises(ArtifactError, match="its tensors is"):
        read_masks(tmp_path / "m", {})


def test_counts_that_differ_from_the_header_are_refused(tmp_path):
    header = {"shapes": {"a": [1, 8]}, "kept": {"a": 3}}
    store.write_tensors(tmp_path / "m", {"a": torch.tensor([[0b11000000]], dtype=torch.uint8)}, "mask", header)
    with pytest.raises(ArtifactError, match="a keeps 2 weights, its header says 3"):
        read_masks(tmp_path / "m", {})


@pytest.mark.parametrize(
    "change",
    [
        torch.Tensor.byte,
        torch.Tensor.long,
        torch.Tensor.float,
        torch.Tensor.numpy,
        torch.Tensor.tolist,
        torch.Tensor.to_sparse,
        lambda mask: mask[0],
        lambda mask: mask[None],
        lambda mask: mask.to("meta"),
    ],
)
def test_what_is_no_mask_is_not_written(tmp_path, change):
    masks = {"a": torch.ones(2, 8, dtype=torch.bool), "b.c": change(torch.ones(2, 8, dtype=torch.bool))}
    with pytest.raises(PatternError, match=r"b\.c: ") as caught:
        write_masks(tmp_path / "m", masks)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()
