"""What each layer keeps: near to what is asked for, with the total exact."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from prunelib import NOfM, PerLayer, PerRow, admm, gram_matrix, select, warmstarts
from prunelib.calibration.settings import CalibrationInputs
from prunelib.errors import ParamsError, PatternError
from prunelib.masks.allocation import Atp, Dlp, Owl, SparsityTable
from prunelib.masks.checks import patterns_of
from prunelib.model.layers import Layer
from prunelib.params import load_params
from prunelib.pruning import budgets
from prunelib.pruning.budgets import balanced, block_importance, by_importance, patterns_by_shape, stored_patterns
from prunelib.pruning.warmstart import warmstart_masks

ROOT = Path(__file__).parents[2]
KINDS = {"per_row": PerRow, "per_layer": PerLayer}


def layer(block, kind, rows, inputs):
    name = f"model.layers.{block}.{kind}"
    shape = {"rows": rows, "inputs": inputs, "transposed": False}
    return Layer(name=name, kind=kind, block=block, tensor=f"{name}.weight", gram=name, **shape)


def kept(layers, patterns):
    """Number of weights kept by layer name."""
    counts = {}
    for each in layers:
        size, keep = patterns[each.name].groups(each.rows, each.inputs)
        counts[each.name] = each.rows * each.inputs // size * keep
    return counts


def of(index, pattern, folder=None, **calibration):
    return stored_patterns(folder, SimpleNamespace(index=index, **calibration), pattern)


def index_of(layers):
    return SimpleNamespace(
        layers=layers,
        blocks=1 + max(each.block for each in layers),
        of_block=lambda block: [each for each in layers if each.block == block],
    )


LAYERS = [layer(block, *shape) for block in range(4) for shape in (("q", 8, 16), ("k", 4, 16), ("down", 8, 40))]


@given(
    shapes=st.lists(st.tuples(st.sampled_from([2, 3, 4, 6, 12]), st.integers(8, 40)), min_size=1, max_size=8),
    kind=st.sampled_from(list(KINDS)),
    sparsity=st.sampled_from([0.3, 0.5, 0.6, 0.625]),
    data=st.data(),
)
def test_the_total_is_exact_and_every_layer_near_to_its_share(shapes, kind, sparsity, data):
    layers = [layer(block, "m", *shape) for block, shape in enumerate(shapes)]
    pattern = KINDS[kind](sparsity=sparsity)
    shares = {each.name: 1 - sparsity + data.draw(st.floats(-0.1, 0.1)) for each in layers}
    try:
        found = kept(layers, balanced(layers, pattern, shares))
    except PatternError:  # rows of 2 and 3 may not make up a total without emptying a layer
        assert kind == "per_row"
        return
    whole = kept(layers, {each.name: pattern for each in layers})
    assert sum(found.values()) == sum(whole.values())
    weights = {each.name: each.rows * each.inputs for each in layers}
    off = (sum(whole.values()) - sum(shares[name] * weights[name] for name in shares)) / sum(weights.values())
    if kind == "per_layer":
        for name, count in found.items():
            assert abs(count - (shares[name] + off) * weights[name]) <= 1 + len(layers)


def test_without_an_allocation_all_layers_have_the_pattern():
    for pattern in (PerRow(sparsity=0.6), PerLayer(sparsity=0.6), NOfM(keep=2, group=4)):
        assert of(index_of(LAYERS), pattern) == {each.name: pattern for each in LAYERS}


@given(
    shapes=st.lists(st.tuples(st.sampled_from([4, 8, 12]), st.sampled_from([16, 40])), min_size=1, max_size=4),
    allocation=st.sampled_from([Owl(spread=0.2), Dlp(), Atp(slope=0.03)]),
    kind=st.sampled_from(list(KINDS)),
    sparsity=st.sampled_from([0.5, 0.6, 0.625]),
    data=st.data(),
)
def test_blocks_by_importance_keep_the_exact_total(shapes, allocation, kind, sparsity, data):
    layers = [
        layer(block, f"m{i}", *shape) for block in range(data.draw(st.integers(1, 6))) for i, shape in enumerate(shapes)
    ]
    pattern = KINDS[kind](sparsity=sparsity, allocation=allocation)
    importances = {each.block: data.draw(st.floats(0, 1)) for each in layers}
    try:
        found = by_importance(layers, pattern, allocation, importances)
    except PatternError as error:  # a share below 0 or above 1; rows of 4, 8 and 12 make up every total
        assert "allocation." in str(error)  # noqa: PT017 - an error is allowed, not expected
        return
    uniform = dict.fromkeys(found, KINDS[kind](sparsity=sparsity))
    assert sum(kept(layers, found).values()) == sum(kept(layers, uniform).values())
    shares = allocation.kept_shares(importances, sparsity)
    for each in layers:
        size = pattern.groups(each.rows, each.inputs).size
        assert abs(kept(layers, found)[each.name] / (each.rows * each.inputs) - shares[each.block]) <= 2 / size + 0.05


def test_what_rounding_leaves_over_is_not_that_of_one_small_layer():
    shapes = [(12, 40), (12, 40), (4, 16), (8, 40)]
    layers = [layer(block, f"m{i}", *shape) for block in range(4) for i, shape in enumerate(shapes)]
    allocation = Dlp(spread=0.15)
    importances = {0: 0.0, 1: 0.5, 2: 1.0, 3: 0.0}
    found = by_importance(layers, PerRow(sparsity=0.625, allocation=allocation), allocation, importances)
    shares = allocation.kept_shares(importances, 0.625)
    for each in layers:
        share = kept(layers, found)[each.name] / (each.rows * each.inputs)
        assert abs(share - shares[each.block]) <= 1 / each.inputs + 0.01


def test_a_progression_needs_no_measure():
    pattern = PerRow(sparsity=0.6, allocation=Atp(slope=0.1))
    patterns = of(index_of(LAYERS), pattern)
    assert patterns == patterns_by_shape(LAYERS, pattern)
    by_block = [patterns[f"model.layers.{block}.down"].groups(8, 40).keep / 40 for block in range(4)]
    assert by_block == pytest.approx([0.55, 0.45, 0.35, 0.25], abs=0.03)
    uniform = kept(LAYERS, {each.name: PerRow(sparsity=0.6) for each in LAYERS})
    assert sum(kept(LAYERS, patterns).values()) == sum(uniform.values())


def test_a_slope_that_the_blocks_do_not_allow_is_refused_before_any_work():
    with pytest.raises(PatternError, match=r"allocation\.slope = 0\.3"):
        patterns_by_shape(LAYERS, PerRow(sparsity=0.6, allocation=Atp(slope=0.3)))


@pytest.fixture
def model(tmp_path):
    """A folder with the weights of ``LAYERS`` and a stand-in for its calibration; later blocks have more outliers."""
    generator = torch.Generator().manual_seed(0)
    weights = {each.name: torch.randn(each.rows, each.inputs, generator=generator) for each in LAYERS}
    for each in LAYERS:
        weights[each.name][0, : 4 * each.block] *= 50
    save_file({f"{name}.weight": weight for name, weight in weights.items()}, tmp_path / "model.safetensors")
    grams = {each.name: gram_matrix(torch.randn(50, each.inputs, generator=generator)) for each in LAYERS}
    calibration = SimpleNamespace(
        index=index_of(LAYERS),
        inputs=CalibrationInputs.DENSE,
        gram=lambda each: grams[each.name],
        provenance={"model": "m"},
        supports=lambda _: True,
    )
    return tmp_path, calibration, weights, grams


def test_outliers_are_counted_over_a_whole_block(model):
    _, calibration, weights, grams = model
    scores = [
        abs(float(weights[each.name][i, j])) * float(grams[each.name][j, j]) ** 0.5
        for each in LAYERS[3:6]
        for i in range(each.rows)
        for j in range(each.inputs)
    ]
    mean = sum(scores) / len(scores)
    expected = sum(score > 5 * mean for score in scores) / len(scores)
    found = block_importance(
        LAYERS[3:6], lambda each: weights[each.name], calibration.gram, Owl(), calibration.supports
    )
    assert found == pytest.approx(expected)
    assert expected > 0


def test_the_median_is_that_of_a_whole_block(model):
    _, calibration, weights, grams = model
    scores = sorted(
        abs(float(weights[each.name][i, j])) * float(grams[each.name][j, j]) ** 0.5
        for each in LAYERS[3:6]
        for i in range(each.rows)
        for j in range(each.inputs)
    )
    found = block_importance(
        LAYERS[3:6], lambda each: weights[each.name], calibration.gram, Dlp(), calibration.supports
    )
    assert found == pytest.approx(-scores[(len(scores) - 1) // 2])


@pytest.mark.parametrize("allocation", [Owl(), Dlp()])
def test_experts_without_a_gram_matrix_of_their_own_do_not_count(model, allocation):
    _, calibration, weights, grams = model
    measured, few = LAYERS[3:5], LAYERS[5]
    grams[few.name] = 1e6 * torch.eye(few.inputs)

    def importance(layers, supports):
        return block_importance(layers, lambda each: weights[each.name], calibration.gram, allocation, supports)

    assert importance([*measured, few], lambda each: each is not few) == importance(measured, lambda _: True)
    assert importance([few], lambda _: False) == importance([few], lambda _: True)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_with_a_lower_median_keep_more(model, kind):
    folder, calibration, weights, _ = model
    for each in LAYERS:
        weights[each.name] *= 1 + each.block
    save_file({f"{name}.weight": weight for name, weight in weights.items()}, folder / "model.safetensors")
    pattern = KINDS[kind](sparsity=0.6, allocation=Dlp(spread=0.15))
    patterns = stored_patterns(folder, calibration, pattern)
    of_blocks = [kept(LAYERS, patterns)[f"model.layers.{block}.down"] for block in range(4)]
    assert of_blocks[0] > of_blocks[1] > of_blocks[2] > of_blocks[3]
    uniform = kept(LAYERS, dict.fromkeys(patterns, KINDS[kind](sparsity=0.6)))
    assert sum(kept(LAYERS, patterns).values()) == sum(uniform.values())


def test_a_block_without_layers_is_passed_over(model):
    folder, calibration, *_ = model
    without = [each for each in LAYERS if each.block != 2]
    calibration.index = index_of(without)
    for allocation in (Owl(), Dlp(), Atp()):
        patterns = stored_patterns(folder, calibration, PerRow(sparsity=0.6, allocation=allocation))
        assert patterns.keys() == {each.name for each in without}


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_with_more_outliers_keep_more(model, kind):
    folder, calibration, *_ = model
    pattern = KINDS[kind](sparsity=0.6, allocation=Owl(spread=0.15))
    masks = warmstart_masks(folder, calibration, pattern, warmstarts.wanda.Wanda(), torch.device("cpu"))
    shares = [
        sum(int(masks[each.name].sum()) for each in LAYERS[3 * block : 3 * block + 3]) / (8 * 16 + 4 * 16 + 8 * 40)
        for block in range(4)
    ]
    assert shares[0] < shares[1] < shares[2] < shares[3]
    uniform = kept(LAYERS, dict.fromkeys(masks, KINDS[kind](sparsity=0.6)))
    assert sum(int(masks[name].sum()) for name in masks) == sum(uniform.values())
    assert patterns_of(masks, pattern) == stored_patterns(folder, calibration, pattern)


@pytest.mark.parametrize("sparsity", [0.62, 1e-3])
def test_patterns_of_a_table_are_those_that_the_masks_give_again(sparsity):
    pattern = PerRow(sparsity=0.5, allocation=SparsityTable(sparsities={"*.q": sparsity}))
    patterns = of(index_of(LAYERS), pattern)
    weights = {each.name: torch.randn(each.rows, each.inputs) for each in LAYERS}
    masks = {name: select(weight.abs(), patterns[name]) for name, weight in weights.items()}
    assert patterns_of(masks, pattern) == patterns
    name = LAYERS[0].name
    found = admm(weights[name], torch.eye(16), masks[name], patterns[name])
    assert found.mask.sum() == masks[name].sum()


def test_layers_of_one_input_cannot_share_a_budget_unevenly():
    layers = [layer(block, "q", 8, 1) for block in range(2)]
    with pytest.raises(PatternError, match="one weight"):
        balanced(layers, PerRow(sparsity=0.5), {each.name: 0.5 for each in layers}, 8)


@given(st.integers(2, 100_000_000), st.data())
def test_a_layers_pattern_keeps_exactly_its_number(size, data):
    keep = data.draw(st.integers(1, size - 1))
    assert PerRow(sparsity=0.5).keeping(keep, size).groups(1, size).keep == keep
    assert PerLayer(sparsity=0.5).keeping(keep, size).groups(1, size).keep == keep


def test_a_table_is_followed_and_the_others_make_up_for_it():
    table = SparsityTable(sparsities={"*.layers.0.*": 0.25, "*.down": 0.75})
    patterns = of(index_of(LAYERS), PerRow(sparsity=0.6, allocation=table))
    counts = kept(LAYERS, patterns)
    assert {counts[each.name] / (each.rows * each.inputs) for each in LAYERS if each.block == 0} == {0.75}
    assert {counts[f"model.layers.{block}.down"] / (8 * 40) for block in (1, 2, 3)} == {0.25}
    uniform = kept(LAYERS, {each.name: PerRow(sparsity=0.6) for each in LAYERS})
    assert sum(kept(LAYERS, patterns).values()) == sum(uniform.values())


@pytest.mark.parametrize(
    ("sparsities", "line"),
    [
        (
            {"*.layers.9.*": 0.5},
            r"allocation\.sparsities: '\*\.layers\.9\.\*' matches no layer, such as model",
        ),
        ({"*": 0.5}, r"it keeps [\d,]+ weights, but sparsity = 0\.6 keeps [\d,]+; leave a layer out"),
        ({"*.layers.[012].*": 0.1}, r"leaves -[\d,]+ of 512 weights to the other layers"),
    ],
)
def test_a_table_that_cannot_be_is_refused(sparsities, line):
    with pytest.raises(PatternError, match=line):
        of(index_of(LAYERS), PerRow(sparsity=0.6, allocation=SparsityTable(sparsities=sparsities)))


def test_rows_that_make_up_no_total_are_refused():
    layers = [layer(0, "m", 4, 8), layer(1, "m", 6, 8)]
    with pytest.raises(PatternError, match="1 weights are left over, and rows come in 4, 6"):
        balanced(layers, PerRow(sparsity=0.5), {each.name: 0.5 for each in layers}, total=41)


def test_few_steps_make_up_what_is_left():
    steps = budgets._steps(1024, [3072, 9216, 16384])
    assert sum(steps) == 1024
    assert len(steps) <= 6


def with_sequential_inputs(folder, pattern):
    text = (ROOT / "params.yaml").read_text()
    text = text.replace("[row60, nm24]", f"[{pattern}]").replace("inputs: dense ", "inputs: sequential ")
    (folder / "params.yaml").write_text(text)
    return folder / "params.yaml"


@pytest.mark.parametrize("pattern", ["row60_owl", "row70_owl", "row70_dlp"])
def test_what_measures_needs_inputs_that_are_known_beforehand(tmp_path, pattern):
    with pytest.raises(ParamsError, match=rf"patterns\.{pattern}: .* = dense, found sequential"):
        load_params(with_sequential_inputs(tmp_path, pattern))


def test_a_progression_takes_any_inputs(tmp_path):
    assert load_params(with_sequential_inputs(tmp_path, "row70_atp")).grid.patterns == ("row70_atp",)


@pytest.mark.parametrize("setting", ["{method: owl, spread: 0.3}", "{method: dlp, spread: 0.3}"])
def test_a_spread_too_large_is_refused_before_any_stage(tmp_path, setting):
    text = (ROOT / "params.yaml").read_text()
    text = text.replace("sparsity: 0.7, allocation: {method: owl}", f"sparsity: 0.7, allocation: {setting}")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"patterns\.row70_owl.*: allocation\.spread = 0\.3") as refused:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(refused.value)
