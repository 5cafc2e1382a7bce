"""Gram matrices against explicit inputs in float64, and bits that no budget, setting or stop may change."""

from collections.abc import Callable, Container, Iterator
from pathlib import Path

import pytest
import torch
from families import DEEPSEEK, DENSE, PARTIAL, RENAMED, SHARED, TUPLES, random_windows, save, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import PreTrainedModel

from prunelib.algebra.objective import checked_layer
from prunelib.calibration.accumulation import accumulate_grams, plan_passes
from prunelib.calibration.gram import gram_matrix
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.windows import in_batches
from prunelib.errors import ModelError, NumericalError
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.layers import LayerIndex
from prunelib.model.structure import find_layers

CPU = torch.device("cpu")
UNLIMITED = 2**40
Grams = dict[int, dict[str, torch.Tensor]]


@pytest.fixture(scope="module", params=[*DENSE, *TUPLES, *SHARED, *RENAMED, *DEEPSEEK, *PARTIAL])
def any_family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    model = tiny_model(request.param)
    return model, find_layers(model, save(model, tmp_path_factory.mktemp(request.param)))


@pytest.fixture
def llama(tmp_path: Path) -> tuple[PreTrainedModel, LayerIndex]:
    model = tiny_model("llama")
    return model, find_layers(model, save(model, tmp_path))


def accumulate(
    model: PreTrainedModel,
    index: LayerIndex,
    windows: torch.Tensor,
    apart: int = 0,
    *,
    batch: int = 2,
    budget: int = UNLIMITED,
    states: int = UNLIMITED,
    finished: Container[int] = (),
    on_batch: Callable[[int], None] = lambda _batch: None,
) -> Iterator[tuple]:
    """The blocks' statistics of windows, the last few of them held out."""
    drawn, held_out = windows.split([len(windows) - apart, apart])
    batches, parts = in_batches((drawn, held_out), batch)
    forward = BlockwiseForward(model, index.block_list, batches, CPU, states)
    return accumulate_grams(forward, index, parts, gram_bytes=budget, finished=finished, on_batch=on_batch)


def accumulated(model: PreTrainedModel, index: LayerIndex, windows: torch.Tensor, batch: int, budget: int) -> Grams:
    blocks = accumulate(model, index, windows, batch=batch, budget=budget)
    return {block: {name: each.gram for name, each in inputs.items()} for block, (inputs, *_) in blocks}


def captured_inputs(model: PreTrainedModel, index: LayerIndex, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs (tokens, inputs) float64 of each layer but experts, window by window, from whole forwards."""
    layers = {layer.module or layer.name: layer.name for layer in index.layers if layer.fused is None}
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in layers.values()}
    handles = [
        model.get_submodule(module).register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0].clone()))
        for module, kept in zip(layers, inputs.values(), strict=True)
    ]
    for window in windows:
        model(window[None].long())
    for handle in handles:
        handle.remove()
    return {name: torch.cat([x.reshape(-1, x.shape[-1]) for x in kept]).double() for name, kept in inputs.items()}


def equal(first: Grams, second: Grams) -> bool:
    return first.keys() == second.keys() and all(
        first[block].keys() == second[block].keys()
        and all(torch.equal(gram, second[block][name]) for name, gram in first[block].items())
        for block in first
    )


# Families


@pytest.mark.parametrize("batch", [1, 3])
def test_grams_are_those_of_the_inputs_each_layer_reads(any_family: tuple, batch: int) -> None:
    model, index = any_family
    windows = random_windows(samples=4, length=16)
    grams = accumulated(model, index, windows, batch, UNLIMITED)
    inputs = captured_inputs(model, index, windows)
    assert list(grams) == list(range(index.blocks))
    assert inputs
    for layer in [layer for layer in index.layers if layer.fused is None]:
        gram = grams[layer.block][layer.gram]
        expected = inputs[layer.name].T @ inputs[layer.name]
        assert gram.dtype == torch.float32
        assert torch.equal(gram, gram.T)
        scale = expected.diagonal().sqrt()
        assert ((gram - expected).abs() <= 1e-5 * scale[:, None] * scale + 1e-30).all()


def test_a_byte_of_budget_gives_the_same_bits(any_family: tuple) -> None:
    model, index = any_family
    windows = random_windows(samples=3, length=12)
    assert equal(
        accumulated(model, index, windows, batch=2, budget=1),
        accumulated(model, index, windows, batch=2, budget=UNLIMITED),
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_means_are_those_of_the_inputs_each_layer_reads(any_family: tuple, batch: int) -> None:
    model, index = any_family
    windows = random_windows(samples=4, length=16)
    inputs = captured_inputs(model, index, windows)
    means = {block: statistics for block, (statistics,) in accumulate(model, index, windows, batch=batch)}
    for layer in [layer for layer in index.layers if layer.fused is None]:
        expected, scale = inputs[layer.name].mean(dim=0), inputs[layer.name].abs().max()
        assert (means[layer.block][layer.gram].mean - expected).abs().max() <= 1e-5 * scale


@pytest.mark.parametrize("apart", [0, 2])
def test_held_out_windows_have_matrices_of_their_own(llama: tuple, apart: int) -> None:
    model, index = llama
    windows = random_windows(samples=5, length=8)
    drawn, held_out = windows.split([5 - apart, apart])
    alone = accumulated(model, index, drawn, batch=2, budget=1)
    separate = accumulated(model, index, held_out, batch=2, budget=1) if apart else {0: {}, 1: {}}
    for block, (inputs, *others) in accumulate(model, index, windows, apart, budget=1):
        inputs_apart = others[0] if apart else {}
        assert equal({0: {name: each.gram for name, each in inputs.items()}}, {0: alone[block]})
        assert equal({0: {name: each.gram for name, each in inputs_apart.items()}}, {0: separate[block]})


@pytest.mark.parametrize("family", [family for family in DENSE if family != "gemma2"])  # Gemma-2 has no sdpa
def test_eager_attention_is_as_causal_as_sdpa(family: str, tmp_path: Path) -> None:
    models = {attention: tiny_model(family, attention) for attention in ("sdpa", "eager")}
    index = find_layers(models["sdpa"], save(models["sdpa"], tmp_path))
    windows = random_windows(samples=2, length=16)
    sdpa, eager = (accumulated(model, index, windows, 2, UNLIMITED) for model in models.values())
    for block, grams in sdpa.items():
        for name, gram in grams.items():
            torch.testing.assert_close(gram, eager[block][name], rtol=1e-4, atol=1e-4 * float(gram.diagonal().max()))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_bfloat16_inputs_are_summed_in_float32(family: str, tmp_path: Path) -> None:
    model = tiny_model(family, dtype=torch.bfloat16)
    index = find_layers(model, save(model, tmp_path))
    windows = random_windows(samples=4, length=16)
    grams = accumulated(model, index, windows, 1, UNLIMITED)
    inputs = captured_inputs(model, index, windows)
    for layer in index.layers:
        expected = inputs[layer.name].T @ inputs[layer.name]
        gram = grams[layer.block][layer.gram].double()
        assert (gram - expected).abs().max() <= 1e-5 * expected.diagonal().max()


# Passes and batches


def count_calls(module: torch.nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_windows_pass_a_block_as_often_as_its_matrices_need(llama: tuple) -> None:
    model, index = llama
    *others, down = readers = list(index.readers(0))
    whole = sum(layer.inputs**2 for layer in readers) * 4
    assert plan_passes(readers, whole) == [readers]
    assert plan_passes(readers, whole - 1) == [others, [down]]
    assert plan_passes(readers, 1) == [[layer] for layer in readers]
    assert plan_passes([], 1) == [[]]
    block, head = count_calls(model.model.layers[0].self_attn), count_calls(model.lm_head)
    for budget, passes in ((1, len(readers)), (whole, 1)):
        accumulated(model, index, random_windows(samples=3, length=8), batch=2, budget=budget)
        assert len(block) == 2 * passes
        block.clear()
    assert not head


def test_progress_is_told_of_a_batch_once_a_block(llama: tuple) -> None:
    model, index = llama
    seen: list[int] = []
    list(accumulate(model, index, random_windows(samples=5, length=8), budget=1, on_batch=seen.append))
    assert seen == [0, 1, 2] * 2


def test_finished_blocks_are_run_through_and_not_yielded(llama: tuple) -> None:
    model, index = llama
    windows = random_windows(samples=3, length=8)
    first, second = (dict(accumulate(model, index, windows, finished=finished)) for finished in ((), {0}))
    assert list(second) == [1]
    for name, found in second[1][0].items():
        assert torch.equal(found.gram, first[1][0][name].gram)
    head = count_calls(model.model.layers[1])
    assert not list(accumulate(model, index, windows, finished={0, 1}))
    assert list(dict(accumulate(model, index, windows, finished={1}))) == [0]
    assert not head


def test_the_model_is_left_as_it_was(llama: tuple) -> None:
    model, index = llama
    ids = random_windows(samples=1, length=8).long()
    before = model(ids).logits
    accumulated(model, index, ids, batch=1, budget=1)
    assert torch.equal(model(ids).logits, before)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_a_real_fault_inside_the_forward_is_not_swallowed(llama: tuple) -> None:
    model, index = llama
    model.model.layers[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("a real fault")))
    with pytest.raises(ValueError, match="a real fault"):
        accumulated(model, index, random_windows(samples=1, length=8), batch=1, budget=UNLIMITED)
    assert not model.model.layers[0].self_attn.q_proj._forward_pre_hooks


def test_a_layer_that_misses_tokens_is_named(llama: tuple) -> None:
    model, index = llama
    mlp = model.model.layers[0].mlp
    whole = mlp.forward
    mlp.forward = lambda x: whole(x[:1]).expand_as(x)  # the batch axis dropped and broadcast
    with pytest.raises(ModelError, match=r"^model\.layers\.0\.mlp\.gate_proj: received 8 of 24 tokens"):
        accumulated(model, index, random_windows(samples=3, length=8), batch=3, budget=UNLIMITED)


@pytest.mark.parametrize("budget", [1, UNLIMITED])
def test_a_layer_that_sees_tokens_twice_is_named(llama: tuple, budget: int) -> None:
    model, index = llama
    mlp = model.model.layers[0].mlp
    whole = mlp.forward
    mlp.forward = lambda x: whole(x) + whole(x)
    with pytest.raises(ModelError, match=r"^model\.layers\.0\.mlp\.gate_proj: received \d+ of 24 tokens"):
        accumulated(model, index, random_windows(samples=3, length=8), batch=1, budget=budget)


def test_a_pass_that_no_block_reads_ends_at_its_last_layer(llama: tuple) -> None:
    model, index = llama
    ends: list[int] = []
    model.model.layers[0].mlp.down_proj.register_forward_hook(lambda *_: ends.append(0))
    accumulated(model, index, random_windows(samples=3, length=8), batch=1, budget=1)
    assert len(ends) == 3 + len(index.readers(0)[:-1])  # all of the last pass, and the first batch of the others


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_inputs_that_are_not_finite_name_their_layer(llama: tuple, value: float) -> None:
    model, index = llama
    model.model.layers[1].mlp.up_proj.weight[3, 2] = value
    blocks = accumulate(model, index, random_windows(samples=2, length=8))
    assert next(blocks)[0] == 0
    with pytest.raises(NumericalError, match=r"^Gram matrix of model\.layers\.1\.mlp\.down_proj: NaN or infinity"):
        next(blocks)


# One matrix


@settings(max_examples=50)
@given(
    tokens=st.integers(1, 600),
    inputs=st.sampled_from([1, 2, 7, 255, 256, 257, 600]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_gram_matrix_is_the_sum_of_outer_products(tokens: int, inputs: int, dtype: torch.dtype, seed: int) -> None:
    x = torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(seed)).to(dtype)
    gram = gram_matrix(x)
    exact = x.double().T @ x.double()
    assert gram.dtype == torch.float32
    assert torch.equal(gram, gram.T)
    torch.testing.assert_close(gram.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.diagonal().max()))
    assert torch.equal(gram, gram_matrix(x.reshape(1, tokens, 1, inputs)))


@pytest.mark.usefixtures("precision")
def test_global_matmul_settings_change_no_bit_and_stay_as_they_are() -> None:
    x = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    torch.set_float32_matmul_precision("highest")
    exact = gram_matrix(x)
    for setting in ("high", "medium"):  # medium multiplies in bfloat16 on CPUs that can
        torch.set_float32_matmul_precision(setting)
        assert torch.equal(gram_matrix(x), exact)
        assert torch.get_float32_matmul_precision() == setting


@pytest.mark.parametrize("inputs", [64, 576, 1000])
def test_the_number_of_threads_changes_no_bit(inputs: int) -> None:
    x = torch.randn(2048, inputs, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    grams = []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        grams.append(gram_matrix(x))
    torch.set_num_threads(before)
    assert all(torch.equal(gram, grams[0]) for gram in grams)


def test_dead_inputs_give_exact_zero_rows() -> None:
    x = torch.randn(10, 300)
    x[:, [0, 270]] = 0
    assert not gram_matrix(x)[[0, 270]].any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_gram_matrix_refuses_what_float32_cannot_sum(value: float) -> None:
    x = torch.ones(4, 300)
    x[2, 299] = value
    with pytest.raises(NumericalError, match=r"^Gram matrix of inputs: NaN or infinity"):
        gram_matrix(x)


# Settings


@pytest.mark.parametrize(
    "change", [{"samples": 0}, {"length": 1}, {"held_out_samples": -1}, {"batch": 0}, {"windows": 3}]
)
def test_calibration_settings_are_checked(change: dict[str, int]) -> None:
    good = {"text": "wikipedia", "samples": 64, "length": 512, "batch": 4, "held_out_samples": 0}
    CalibrationSettings(**good)
    with pytest.raises(ValidationError, match=next(iter(change))):
        CalibrationSettings(**{**good, **change})


@pytest.mark.parametrize("size", [1e-18, 1e-23, 1e-25, 1e-38])
def test_an_input_too_small_for_its_square_is_dead_and_not_refused(size: float) -> None:
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    x[:, 3] *= size
    gram = gram_matrix(x)
    assert torch.equal(gram[3, 3] == 0, (gram[3] == 0).all())
    assert torch.equal(gram, gram.T)
    checked_layer(torch.ones(2, 8), gram)


@pytest.mark.parametrize("share", [1e-19, 1e-21, 1e-22, 7e-23, 2e-23, 1e-30])
@pytest.mark.parametrize("tokens", [1, 100])
def test_an_input_in_step_with_another_is_not_refused_however_small(tokens: int, share: float) -> None:
    x = torch.randn(tokens, 8, generator=torch.Generator().manual_seed(1))
    x[:, 3] = x[:, 0] * share
    checked_layer(torch.ones(2, 8), gram_matrix(x))
