"""What each layer keeps: near to what is asked for, with the total exact."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from prunelib import NOfM, PerLayer, PerRow, gram_matrix, warmstarts
from prunelib.calibration.settings import CalibrationInputs
from prunelib.errors import ParamsError, PatternError
from prunelib.masks.allocation import Owl, SparsityTable
from prunelib.masks.patterns import patterns_of
from prunelib.model.layers import Layer
from prunelib.params import load_params
from prunelib.pruning import budgets
from prunelib.pruning.budgets import balanced, outlier_share, owl_shares, stored_patterns
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


def test_owl_is_as_in_the_paper():
    outliers = [0.1, 0.4, 0.2, 0.1]
    shares = owl_shares(LAYERS, outliers, 0.6, Owl(spread=0.08))
    raised = [0.0, 0.16, 0.16 / 3, 0.0]
    for each in LAYERS:
        assert shares[each.name] == pytest.approx(0.4 + raised[each.block] - sum(raised) / 4)


def test_blocks_that_are_all_alike_share_alike():
    assert set(owl_shares(LAYERS, [0.1] * 4, 0.6, Owl()).values()) == {0.4}


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
    found = outlier_share(LAYERS[3:6], lambda each: weights[each.name], calibration.gram, Owl())
    assert found == pytest.approx(expected)
    assert expected > 0


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


@given(st.integers(2, 100_000_000), st.data())
def test_a_layers_pattern_keeps_exactly_its_number(size, data):
    keep = data.draw(st.integers(1, size - 1))
    assert PerRow(sparsity=0.5).keeping(keep, size).groups(1, size).keep == keep
    assert PerLayer(sparsity=0.5).keeping(keep, size).groups(1, size).keep == keep


def test_a_table_is_followed_and_the_others_make_up_for_it():
    table = SparsityTable(sparsities={"*.layers.0.*": 0.25, "*.down": 0.75})
    patterns = of(index_of(LAYERS), PerRow(sparsity=0.6, allocation=table))
    assert {patterns[each.name].sparsity for each in LAYERS if each.block == 0} == {0.25}
    assert {patterns[f"model.layers.{block}.down"].sparsity for block in (1, 2, 3)} == {0.75}
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


def test_owl_needs_inputs_that_are_known_beforehand(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    text = text.replace("[row60, nm24]", "[row60_owl]").replace("inputs: dense ", "inputs: sequential ")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"patterns\.row60_owl: .* = dense, found sequential"):
        load_params(tmp_path / "params.yaml")
