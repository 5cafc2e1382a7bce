"""The calibration artifact: what is written comes back, and what does not belong is refused."""

import pytest
import torch
from families import random_windows, save, tiny_model

from prunelib import gram_matrix
from prunelib.calibration.artifact import Calibration, read_origin, write_grams, write_layers, write_tokens
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.statistics import InputStatistics
from prunelib.errors import ArtifactError, NumericalError
from prunelib.model.structure import find_layers
from prunelib.runtime.store import write_record, write_tensors

GRAM = gram_matrix(torch.randn(40, 32))
TOKENS = 9
COUNTS = {"count": TOKENS, "held_out_count": 0}
NONE = torch.empty(0, 8, dtype=torch.int32)


def drawn_from(**settings):
    settings = CalibrationSettings(text="t", samples=2, length=8, batch=1, **settings)
    return {"model": "m", "settings": settings.model_dump()}


def known(gram):
    return InputStatistics(gram, mean=torch.arange(len(gram), dtype=torch.float32), tokens=TOKENS)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    model = tiny_model("llama")
    return find_layers(model, save(model, tmp_path_factory.mktemp("llama")))


@pytest.fixture
def written(tmp_path, index):
    write_tokens(tmp_path, random_windows(2, 8), NONE, drawn_from())
    origin = read_origin(tmp_path)
    for block in range(index.blocks):
        widths = {reader.name: reader.inputs for reader in index.readers(block)}
        inputs = {name: known(gram_matrix(torch.randn(TOKENS, width))) for name, width in widths.items()}
        write_grams(tmp_path, block, (inputs,), {**origin, **COUNTS})
    energies = {layer.name: 1.0 for layer in index.layers}
    write_layers(tmp_path, index, energies, origin)
    return tmp_path


@pytest.fixture
def layer(index):
    return index.layers[1]  # k_proj, which reads the Gram matrix of q_proj


def test_the_share_of_dense_targets_is_recorded_unless_it_is_zero(tmp_path):
    for share in (0.0, 0.5):
        folder = tmp_path / str(share)
        write_tokens(folder, random_windows(2, 8), NONE, drawn_from(inputs="true_sequential", dense_target=share))
        assert read_origin(folder)["calibration"].get("dense_target", 0.0) == share
        assert ("dense_target" in read_origin(folder)["calibration"]) == bool(share)


def test_what_was_written_comes_back(written, index, layer):
    provenance = Calibration.open(written, "m").provenance
    write_grams(written, 0, ({layer.gram: known(GRAM)},), {**provenance, **COUNTS})
    calibration = Calibration.open(written, "m")
    assert calibration.index == index
    assert torch.equal(calibration.gram(layer), GRAM)
    assert set(calibration.energies) == {layer.name for layer in index.layers}


def test_its_identity_is_of_settings_and_of_gram_matrices(written, layer):
    calibration = Calibration.open(written, "m")
    first = calibration.identity()
    write_grams(written, 0, ({layer.gram: known(GRAM)},), {**calibration.provenance, **COUNTS})
    second = calibration.identity()
    write_tokens(written, random_windows(2, 8), NONE, drawn_from(held_out_samples=1))
    assert len({first, second, Calibration.open(written, "m").identity()}) == 3


def test_further_statistics_come_back(written, layer):
    calibration = Calibration.open(written, "m")
    extra = calibration.extra_inputs(layer)
    assert (extra.tokens, extra.windows, extra.name) == (TOKENS, 2, layer.name)
    assert extra.held_out_gram is None
    torch.testing.assert_close(extra.input_mean, torch.arange(32.0))
    inputs, apart = {layer.gram: known(GRAM)}, {layer.gram: known(2 * GRAM)}
    write_grams(written, 0, (inputs, apart), {**calibration.provenance, "count": TOKENS, "held_out_count": 5})
    torch.testing.assert_close(calibration.extra_inputs(layer).held_out_gram, 2 * GRAM)


def test_held_out_windows_are_part_of_the_identity(tmp_path):
    windows = random_windows(3, 8)
    assert write_tokens(tmp_path, windows, NONE, {}) != write_tokens(tmp_path, windows[:2], windows[2:], {})


def test_layers_with_one_input_read_one_matrix(written, index):
    calibration = Calibration.open(written, "m")
    query, key, value = (calibration.gram(layer) for layer in index.layers[:3])
    assert torch.equal(query, key)
    assert torch.equal(query, value)


def test_the_identity_of_tokens_is_their_contents(tmp_path):
    one, same, other = (write_tokens(tmp_path, random_windows(2, 8, seed), NONE, {}) for seed in (0, 0, 1))
    assert one == same != other


def test_a_calibration_of_another_model_is_refused(written):
    with pytest.raises(ArtifactError, match="its model is 'm', but 'other' was expected"):
        Calibration.open(written, "other")


@pytest.mark.parametrize("missing", ["tokens.safetensors", "layers.json", "energies.json"])
def test_a_missing_file_is_named(written, missing):
    (written / missing).unlink()
    with pytest.raises(ArtifactError, match=f"{missing}: no such file; run the stage"):
        Calibration.open(written, "m")


@pytest.mark.parametrize(
    ("energies", "message"),
    [
        ({"model": "other", "tokens": "?"}, "its model is 'other'"),
        ({"model": "m", "tokens": "other"}, "its tokens is 'other'"),
    ],
)
def test_energies_that_do_not_belong_are_refused(written, energies, message):
    write_record(written / "energies.json", "energies", energies)
    with pytest.raises(ArtifactError, match=message):
        Calibration.open(written, "m")


def test_energies_of_other_layers_are_refused(written, index):
    write_layers(written, index, {"other": 1.0}, read_origin(written))
    with pytest.raises(ArtifactError, match="its layers is"):
        Calibration.open(written, "m")


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (GRAM.double(), ArtifactError, r"is torch\.float64 \(32, 32\), expected float32 \(32, 32\)"),
        (GRAM[:4, :4].clone(), ArtifactError, r"is torch\.float32 \(4, 4\), expected float32 \(32, 32\)"),
        (GRAM * torch.nan, NumericalError, "contains NaN or infinity"),
    ],
)
def test_a_matrix_that_is_no_gram_of_the_layer_is_refused(written, layer, matrix, error, message):
    calibration = Calibration.open(written, "m")
    write_grams(written, 0, ({layer.gram: known(matrix)},), {**calibration.provenance, **COUNTS})
    with pytest.raises(error, match=message):
        calibration.gram(layer)


def test_grams_of_other_tokens_another_block_or_kind_are_refused(written, layer):
    calibration = Calibration.open(written, "m")
    path = written / "block_000.safetensors"
    write_grams(written, 0, ({layer.gram: known(GRAM)},), {"model": "m", "tokens": "other", **COUNTS})
    with pytest.raises(ArtifactError, match="its tokens is 'other'"):
        calibration.gram(layer)
    path.write_bytes((written / "block_001.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match="its block is 1, but 0 was expected"):
        calibration.gram(layer)
    write_tensors(path, {layer.gram: GRAM}, "mask", {})
    with pytest.raises(ArtifactError, match="expected a gram artifact"):
        calibration.gram(layer)
    write_grams(written, 0, ({"other": known(GRAM)},), {**calibration.provenance, "count": TOKENS})
    with pytest.raises(ArtifactError, match="no tensor"):
        calibration.gram(layer)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="truncated"):
        calibration.gram(layer)
    path.unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        calibration.gram(layer)
