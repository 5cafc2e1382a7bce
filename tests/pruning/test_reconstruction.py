"""Reconstruction of a model's blocks on two streams, against whole forwards of the dense and the pruned model."""

import copy

import pytest
import torch
from families import DEEPSEEK, DENSE, MIXTURE, PARTIAL, RENAMED, SHARED, TUPLES, random_windows, tiny_model
from runs import Bar, stopped_at_each_write

from prunelib.block_refiners.block_reconstruction import BlockReconstruction
from prunelib.errors import NumericalError
from prunelib.masks.pruned import Pruned
from prunelib.model import blockwise
from prunelib.model.structure import find_layers
from prunelib.model.weights import apply_pruned, weight_in
from prunelib.pruning.reconstruction import ModelReconstruction
from prunelib.pruning.refined_blocks import FinishedBlocks, RefinedBlock
from prunelib.records import LayerResult

CPU = torch.device("cpu")
WINDOWS = random_windows(samples=6, length=12)
ALL = {**DENSE, **MIXTURE, **TUPLES, **SHARED, **RENAMED, **DEEPSEEK, **PARTIAL}
FEW = BlockReconstruction(epochs=2, held_out=0)


def pruned_blocks(model, seed=0):
    """Random masks of all layers, a block each, without updated weights."""
    draw, index, blocks = torch.Generator().manual_seed(seed), find_layers(model), []
    for number in range(index.blocks):
        layers = index.of_block(number)
        masks = {layer.name: torch.rand(layer.rows, layer.inputs, generator=draw) < 0.5 for layer in layers}
        records = [
            LayerResult(
                name=layer.name,
                kind=layer.kind,
                block=number,
                rows=layer.rows,
                inputs=layer.inputs,
                kept=int(masks[layer.name].sum()),
                loss_before=2.0,
                loss_after=1.0,
                energy=4.0,
            )
            for layer in layers
        ]
        blocks.append(RefinedBlock(Pruned(masks, {}), records, [[0.0] for _ in layers], 0))
    return index, blocks


def reconstruction(model, index, settings=FEW, threads=1, state_bytes=2**30):
    def stored(layer):
        return layer.weight(model).dtype

    return ModelReconstruction(model, index, WINDOWS, settings, stored, CPU, state_bytes, threads)


def run(tmp_path, model, settings=FEW, bar=None, **arguments):
    index, blocks = pruned_blocks(model)
    tmp_path.mkdir(exist_ok=True)
    finished = FinishedBlocks(tmp_path, {"model": "abc"})
    return index, reconstruction(model, index, settings, **arguments).run(blocks, finished, tmp_path, bar or Bar())


def of_block(block, layers):
    """The masks and weights of a refined block, with masks for exactly its layers."""
    return block.pruned._replace(masks={layer.name: block.pruned.masks[layer.name] for layer in layers})


def applied(model, index, blocks):
    """A copy of the model with all blocks pruned."""
    pruned = copy.deepcopy(model)
    for number, block in enumerate(blocks):
        layers = index.of_block(number)
        apply_pruned(pruned, layers, of_block(block, layers))
    return pruned


@torch.no_grad()
def left_by_blocks(model, index):
    """The hidden states (windows, length, hidden) that enter the first block, and that each block leaves."""
    states = []

    def before(_module, args, kwargs):
        states.append(next(each for each in [*args, *kwargs.values()] if isinstance(each, torch.Tensor)))

    def after(_module, _args, output):
        states.append(output if isinstance(output, torch.Tensor) else output[0])

    blocks = list(model.get_submodule(index.block_list).children())
    hooks = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    hooks += [block.register_forward_hook(after) for block in blocks]
    model(input_ids=WINDOWS.long(), use_cache=False)
    for hook in hooks:
        hook.remove()
    return states


def same(some, others):
    return all(
        a.reconstruction == b.reconstruction
        and all(torch.equal(a.pruned.weights[n], w) for n, w in b.pruned.weights.items())
        for a, b in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("family", ALL)
def test_the_errors_are_those_between_whole_forwards(tmp_path, family):
    model = tiny_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    index, blocks = run(tmp_path, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    dense, pruned = left_by_blocks(model, index), left_by_blocks(applied(model, index, blocks), index)
    for number, block in enumerate(blocks):
        errors = (pruned[number + 1] - dense[number + 1]).double().square().sum()
        update = (dense[number + 1] - dense[number]).double().square().sum()
        found = block.reconstruction
        assert (found.block, found.error_after) == (number, pytest.approx(float(errors / update), rel=1e-3))
        assert found.error_after < found.error_before
        assert all(record.updated for record in block.records)


def test_only_kept_weights_of_layers_change(tmp_path):
    model = tiny_model("mixtral")
    index, blocks = run(tmp_path, model)
    for layer in index.layers:
        block = blocks[layer.block].pruned
        weight, mask = block.weights[layer.name], block.masks[layer.name]
        assert not weight[~mask].any()
        assert not weight[~mask].signbit().any()
        assert not torch.equal(weight[mask], weight_in(model, layer)[mask])


@pytest.mark.parametrize("family", ["llama", "mixtral", "bloom", "gemma4_text", "mamba"])
def test_the_number_of_threads_changes_no_bit(tmp_path, family):
    model = tiny_model(family)
    runs = [run(tmp_path / str(threads), model, threads=threads)[1] for threads in (1, 2, 3)]
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])


def test_a_block_may_read_what_the_dense_model_leaves(tmp_path):
    model = tiny_model("llama")
    index, blocks = run(tmp_path, model, BlockReconstruction(epochs=2, held_out=0, inputs="dense"))
    dense = left_by_blocks(model, index)
    for number, block in enumerate(blocks):
        alone = copy.deepcopy(model)
        layers = index.of_block(number)
        apply_pruned(alone, layers, of_block(block, layers))
        left = left_by_blocks(alone, index)
        errors = (left[number + 1] - dense[number + 1]).double().square().sum()
        update = (dense[number + 1] - dense[number]).double().square().sum()
        assert block.reconstruction.error_after == pytest.approx(float(errors / update), rel=1e-3)


def test_the_target_may_be_what_the_dense_block_leaves_of_pruned_inputs(tmp_path):
    model = tiny_model("llama")
    index, blocks = run(tmp_path, model, BlockReconstruction(epochs=2, held_out=0, dense_target=0.25))
    dense, pruned = left_by_blocks(model, index), left_by_blocks(applied(model, index, blocks), index)
    last = applied(model, index, blocks)  # the last block of the dense model after the first one, pruned
    for layer in index.of_block(1):
        layer.weight(last).copy_(layer.weight(model))
    target = 0.25 * dense[2] + 0.75 * left_by_blocks(last, index)[2]
    errors, update = ((a - b).double().square().sum() for a, b in ((pruned[2], target), (dense[2], dense[1])))
    assert blocks[1].reconstruction.error_after == pytest.approx(float(errors / update), rel=1e-3)


def test_a_run_that_is_stopped_at_any_write_resumes_to_the_same_bits(tmp_path, monkeypatch):
    model = tiny_model("bloom")
    monkeypatch.setattr(blockwise, "SECONDS_BETWEEN_SAVES", 0.0)
    _, expected = run(tmp_path / "undisturbed", model)
    stops = 0
    for stop in stopped_at_each_write(monkeypatch, lambda number: run(tmp_path / f"stopped{number}", model)):
        bar = Bar()
        _, found = run(tmp_path / f"stopped{stop}", model, bar=bar)
        assert same(found, expected)
        assert bar.done == len(expected) * FEW.gradients(len(WINDOWS))
        stops += 1
    assert stops > len(expected)


def test_states_ahead_of_the_finished_blocks_are_made_again(tmp_path, monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(blockwise, "SECONDS_BETWEEN_SAVES", 0.0)
    _, expected = run(tmp_path, model)
    finished = FinishedBlocks(tmp_path, {"model": "abc"})
    (finished.path(0) / "cost.json").write_text("damaged")
    assert same(run(tmp_path, model)[1], expected)


def test_states_beyond_the_budget_are_kept_on_the_cpu(tmp_path):
    model = tiny_model("llama")
    assert same(run(tmp_path / "a", model)[1], run(tmp_path / "b", model, state_bytes=0)[1])


def test_a_dense_block_that_returns_no_numbers_is_named(tmp_path):
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight.fill_(float("inf"))
    with pytest.raises(NumericalError, match="block 1"):
        run(tmp_path, model)


def test_gradients_are_on_and_off_where_they_were(tmp_path):
    model = tiny_model("llama").requires_grad_(True)
    model.model.embed_tokens.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with torch.no_grad():
        run(tmp_path, model)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before


def test_a_pruned_block_that_returns_nan_is_one_line(tmp_path):
    model = tiny_model("llama")
    index, blocks = pruned_blocks(model)
    layer = index.of_block(0)[0]
    weight = torch.full((layer.rows, layer.inputs), 1e38).masked_fill(~blocks[0].pruned.masks[layer.name], 0)
    blocks[0] = blocks[0]._replace(pruned=Pruned(blocks[0].pruned.masks, {layer.name: weight}))
    with pytest.raises(NumericalError, match=r"decoder block 0: .*once it is pruned"):
        reconstruction(model, index).run(blocks, FinishedBlocks(tmp_path, {"model": "abc"}), tmp_path, Bar())
