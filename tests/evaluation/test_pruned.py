"""Masks put on a model, verified against its folder, and the mean errors of layers with known losses."""

from pathlib import Path

import pytest
import torch
from families import save, tiny_model
from report_records import layers

from prunelib.errors import ModelError, PatternError
from prunelib.evaluation.pruned import apply_and_check, mean_errors
from prunelib.masks.pruned import Pruned
from prunelib.model.layers import LayerIndex
from prunelib.model.structure import find_layers
from prunelib.model.weights import achieved_sparsity, check_pruned, read_weight


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def dense(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A family, and the folder of its tiny model."""
    return request.param, save(tiny_model(request.param), tmp_path_factory.mktemp("dense"))


def halves(index: LayerIndex) -> dict[str, torch.Tensor]:
    """Masks that keep every other weight of a row."""
    return {layer.name: (torch.arange(layer.inputs) % 2 == 0).repeat(layer.rows, 1) for layer in index.layers}


def test_the_masked_weights_and_no_others_are_zero(dense: tuple[str, Path]) -> None:
    family, folder = dense
    model = tiny_model(family)
    index = find_layers(model, folder)
    apply_and_check(model, index.layers, Pruned(halves(index), {}), folder)
    assert achieved_sparsity(model, index.layers) == 0.5
    before, after = tiny_model(family).state_dict(), model.state_dict()
    weights = {f"{layer.name}.weight" for layer in index.layers}
    assert {name for name in before if not torch.equal(before[name], after[name])} == weights


def test_updated_weights_stand_where_the_mask_keeps_them_and_in_no_other_layer(dense: tuple[str, Path]) -> None:
    family, folder = dense
    model = tiny_model(family)
    index = find_layers(model, folder)
    updated, masks = index.layers[0], halves(index)
    weight = (2 * read_weight(folder, updated)).masked_fill(~masks[updated.name], 0)
    apply_and_check(model, index.layers, Pruned(masks, {updated.name: weight}), folder)
    found = model.get_parameter(f"{updated.name}.weight").data
    torch.testing.assert_close(found.T if updated.transposed else found, weight, rtol=0, atol=0)
    found[0, 0] += 1
    with pytest.raises(ModelError, match=rf"^{updated.name}: 1 of \d+ kept weights .* the refiner"):
        check_pruned(model, index.layers, masks, folder, {updated.name: weight})


def test_a_model_with_other_weights_than_its_folder_is_refused(dense: tuple[str, Path]) -> None:
    family, folder = dense
    model = tiny_model(family)
    index = find_layers(model, folder)
    last = index.layers[-1].name
    model.get_parameter(f"{last}.weight").data[0, 0] += 1
    with pytest.raises(ModelError, match=rf"^{last}: 1 of \d+ kept weights "):
        apply_and_check(model, index.layers, Pruned(halves(index), {}), folder)


def test_masks_of_another_model_change_nothing(dense: tuple[str, Path]) -> None:
    family, folder = dense
    model = tiny_model(family)
    index = find_layers(model, folder)
    (first, *_), masks = index.layers, halves(index)
    del masks[first.name]
    with pytest.raises(PatternError, match=rf"layers are missing, first {first.name}$"):
        apply_and_check(model, index.layers, Pruned(masks, {}), folder)
    dense_weights = tiny_model(family).state_dict()
    assert all(torch.equal(weight, dense_weights[name]) for name, weight in model.state_dict().items())


def test_every_layer_counts_alike_in_the_mean_errors() -> None:
    """Losses 1, 2, ... 6 of 10 before, half of them after."""
    assert mean_errors(layers(6, 0.5)) == pytest.approx({"relative_error": 0.175, "error_reduction": 0.5})


def test_a_layer_without_output_or_error_counts_as_0() -> None:
    (layer, *_) = layers(6, 0.5)
    silent = layer.model_copy(update={"energy": 0.0, "loss_before": 0.0, "loss_after": 0.0})
    assert mean_errors([layer, silent]) == {"relative_error": 0.025, "error_reduction": 0.25}


def test_bounds_say_the_optimality_gap_by_layer_and_in_total() -> None:
    """Losses 0.5, 1, ... 3, which make 10.5, and bounds of 0.25."""
    bounded = layers(6, 0.5, bound=0.25)
    found = mean_errors(bounded)
    assert found["optimality_gap"] == pytest.approx(sum(1 - 0.25 / (0.5 * k) for k in range(1, 7)) / 6)
    assert found["optimality_gap_total"] == pytest.approx(1 - 6 * 0.25 / 10.5)


@pytest.mark.parametrize("known", [{"updated": True, "bound": 0.25}, {"bound": None}])
def test_updated_weights_and_layers_without_a_bound_leave_none(known: dict[str, object]) -> None:
    first, *others = layers(6, 0.5, bound=0.25)
    assert "optimality_gap" not in mean_errors([first.model_copy(update=known), *others])
