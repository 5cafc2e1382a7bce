"""Masks from a file: what fits the model and the pattern is taken as it is, anything else is refused by name."""

import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from prunelib import NOfM, PerRow, select
from prunelib.errors import ArtifactError, PatternError
from prunelib.masks.packed import write_masks
from prunelib.model.layers import Layer
from prunelib.model.weights import shapes_of
from prunelib.runtime import hashing, store
from prunelib.warmstarts.given import GivenMasks, given_masks

PATTERN = NOfM(keep=2, group=4)
SHAPES = {"blocks.0.q": (4, 8), "blocks.0.up": (12, 8)}
LAYERS = tuple(
    Layer(name=n, kind=n[9:], block=0, tensor=f"{n}.weight", transposed=False, rows=r, inputs=i, gram="blocks.0.q")
    for n, (r, i) in SHAPES.items()
)
GIVEN = {
    name: select(torch.rand(shape, generator=torch.Generator().manual_seed(shape[0])), PATTERN)
    for name, shape in SHAPES.items()
}


def read(path, model="m", pattern=PATTERN):
    settings = GivenMasks(path=str(path), sha256=hashing.sha256_file(path))
    return given_masks(settings, shapes_of(LAYERS), {layer.name: pattern for layer in LAYERS}, model)


@pytest.fixture
def plain(tmp_path):
    def write(tensors):
        save_file(tensors, tmp_path / "given.safetensors")
        return tmp_path / "given.safetensors"

    return write


def assert_given(found):
    assert found.keys() == GIVEN.keys()
    for name, mask in GIVEN.items():
        assert found[name].dtype == torch.bool
        assert torch.equal(found[name], mask)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("suffix", ["", ".weight"])
def test_a_plain_file_is_read_in_any_dtype_under_either_name(plain, dtype, suffix):
    assert_given(read(plain({name + suffix: mask.to(dtype) for name, mask in GIVEN.items()})))


@pytest.mark.parametrize("provenance", [{"model": "m", "tokens": "t"}, {}])
def test_masks_of_another_run_are_read(tmp_path, provenance):
    write_masks(tmp_path / "m", GIVEN, provenance)
    assert_given(read(tmp_path / "m"))


def test_masks_of_another_model_are_refused(tmp_path):
    write_masks(tmp_path / "m", GIVEN, {"model": "other"})
    with pytest.raises(ArtifactError, match="its model is 'other', but 'm' was expected"):
        read(tmp_path / "m")


def test_another_artifact_is_refused(tmp_path):
    store.write_tensors(tmp_path / "m", GIVEN, "gram", {"model": "m"})
    with pytest.raises(ArtifactError, match="expected a mask artifact of prunelib, found gram"):
        read(tmp_path / "m")


def test_another_file_is_refused_with_its_hash(plain):
    path = plain(GIVEN)
    with pytest.raises(ArtifactError, match=rf"sha256 is {hashing.sha256_file(path)}, params.yaml expects {'0' * 64}"):
        given_masks(GivenMasks(path=str(path), sha256="0" * 64), shapes_of(LAYERS), {}, "m")


def test_a_file_that_is_missing_or_no_safetensors_is_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ArtifactError, match="no such file"):
            given_masks(GivenMasks(path=str(path), sha256="0" * 64), shapes_of(LAYERS), {}, "m")
    torch.save(GIVEN, tmp_path / "pickle")
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        read(tmp_path / "pickle")


@pytest.mark.parametrize("value", [2.0, 0.5, -1.0, float("nan")])
def test_other_values_than_0_and_1_are_refused(plain, value):
    mask = GIVEN["blocks.0.q"].float()
    mask[1, 2] = value
    with pytest.raises(ArtifactError, match=r"blocks\.0\.q contains values other than 0 and 1"):
        read(plain({**GIVEN, "blocks.0.q": mask}))


def test_a_layer_under_both_its_names_is_refused(plain):
    with pytest.raises(ArtifactError, match="a layer twice"):
        read(plain({**GIVEN, "blocks.0.q.weight": ~GIVEN["blocks.0.q"]}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"blocks.0.q": None}, r"1 of 2 layers are missing, first blocks\.0\.q"),
        ({"head": ~GIVEN["blocks.0.q"]}, "1 match no layer of the model, first head"),
        (
            {"blocks.0.up": GIVEN["blocks.0.up"].T.contiguous()},
            r"mask of blocks\.0\.up: shape \(8, 12\), expected",
        ),
        (
            {"blocks.0.up": GIVEN["blocks.0.up"].flatten()},
            r"mask of blocks\.0\.up: torch.bool of shape \(96,\), expected",
        ),
        ({"blocks.0.up": GIVEN["blocks.0.up"] | True}, r"blocks\.0\.up: mask: 24 of 24 groups do not keep exactly 2"),
    ],
)
def test_masks_that_do_not_fit_are_refused_with_file_and_layer(plain, changed, message):
    tensors = {name: mask for name, mask in {**GIVEN, **changed}.items() if mask is not None}
    with pytest.raises(PatternError, match=message) as caught:
        read(plain(tensors))
    assert "given.safetensors: " in str(caught.value)


def test_the_same_file_fits_one_pattern_and_not_another(plain):
    path = plain(GIVEN)
    assert_given(read(path, pattern=PerRow(sparsity=0.5)))
    with pytest.raises(PatternError, match=r"blocks\.0\.q: mask: 4 of 4 groups do not keep exactly 6 of 8"):
        read(path, pattern=PerRow(sparsity=0.25))


def test_provenance_holds_the_hash_and_no_path_of_this_machine():
    settings = GivenMasks(path="/home/someone/masks.safetensors", sha256="a" * 64)
    assert json.loads(json.dumps(settings.model_dump())) == {"method": "given", "sha256": "a" * 64}


@pytest.mark.parametrize("missing", [{"path": "x"}, {"sha256": "a" * 64}, {"path": "", "sha256": "a" * 64}])
def test_path_and_hash_are_required(missing):
    with pytest.raises(ValidationError):
        GivenMasks(**missing)
