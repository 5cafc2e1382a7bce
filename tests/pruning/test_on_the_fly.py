"""Refinement block by block, against a plain reimplementation with whole forwards."""

from functools import partial
from itertools import product

import pytest
import torch
from families import DENSE, MIXTURE, random_windows, read_by_expert, save, tiny_model
from runs import Bar

from prunelib.calibration.dense_targets import DAMPING, DenseTargets
from prunelib.calibration.settings import CalibrationInputs
from prunelib.calibration.windows import in_batches
from prunelib.errors import NumericalError
from prunelib.masks.patterns import PerRow
from prunelib.masks.pruned import merge_pruned
from prunelib.masks.selection import select
from prunelib.model import blockwise
from prunelib.model.blockwise import BlockwiseForward, Checkpoint
from prunelib.model.structure import find_layers
from prunelib.model.weights import apply_pruned, read_weight
from prunelib.pruning import refined_layers as refining
from prunelib.pruning.on_the_fly import OnTheFlyRefinement
from prunelib.pruning.refined_blocks import FinishedBlocks
from prunelib.refiners import least_squares, sparseswaps
from prunelib.warmstarts.wanda import wanda

CPU = torch.device("cpu")
PATTERN = PerRow(sparsity=0.5)
PROVENANCE = {"model": "abc"}
WINDOWS, HELD_OUT = random_windows(samples=5, length=16), random_windows(samples=2, length=16, seed=1)


def chosen(_layer, weight, gram):
    return select(wanda(weight, gram), PATTERN)


def refinement(folder, model, index, inputs, settings=None, gram_bytes=2**30, share=0.0):
    batches, parts = in_batches((WINDOWS, HELD_OUT), 2)
    stream = partial(BlockwiseForward, model, index.block_list, batches, CPU, 2**30)
    return OnTheFlyRefinement(
        forward=stream(),
        index=index,
        weight=partial(read_weight, folder),
        parts=parts,
        choose=chosen,
        patterns={layer.name: PATTERN for layer in index.layers},
        settings=settings or sparseswaps.SparseSwaps(),
        inputs=CalibrationInputs(inputs),
        gram_bytes=gram_bytes,
        min_tokens=1,
        device=CPU,
        targets=DenseTargets(stream(), parts[0], share) if share else None,
    )


def saved(tmp_path, family="llama", attention=None):
    """A tiny model: its folder, itself, and its layers."""
    model = tiny_model(family, attention)
    folder = save(model, tmp_path / "model")
    return folder, model, find_layers(model, folder)


def refine(tmp_path, *arguments, **settings):
    checkpoint, finished = Checkpoint(tmp_path), FinishedBlocks(tmp_path, PROVENANCE)
    return list(refinement(*arguments, **settings).refine(finished, Bar(), checkpoint))


@torch.no_grad()
def inputs_of(model, index, block):
    """What each reader of a block sees in whole forwards, (tokens, inputs) float64, in the order in which they run."""
    seen = {}

    def keep(layer, x):
        seen.setdefault(layer.name, []).append(x.reshape(-1, x.shape[-1]).double())

    def keep_of_experts(readers, experts, args):
        for reader in readers:
            keep(reader, read_by_expert(experts, args, reader))

    fused = [layer for layer in index.readers(block) if layer.fused]
    hooks = {
        layer.name: lambda _, args, layer=layer: keep(layer, args[0])
        for layer in index.readers(block)
        if not layer.fused
    }
    hooks |= {layer.parameter.rpartition(".")[0]: partial(keep_of_experts, fused) for layer in fused}
    handles = [model.get_submodule(name).register_forward_pre_hook(hook) for name, hook in hooks.items()]
    for tokens in WINDOWS.split(2):
        model(input_ids=tokens.long())
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def moved(weight, x_dense, x, share):
    """A weight that makes up for what has changed in its inputs (tokens, inputs), by the formula."""
    gram = x.T @ x
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    step = weight.double() @ (x_dense - x).T @ x @ torch.linalg.inv(damped)
    return (weight.double() + share * step).to(weight.dtype)


@torch.no_grad()
def plain(model, index, inputs, refine=sparseswaps.sparseswaps, dense=None, share=0.0):
    """Whole forwards, over and over: Gram matrices of what has been pruned so far, group after group of layers."""
    pruned = {}
    for block in range(index.blocks):
        parameters = {layer.name: layer.parameter for layer in index.readers(block)}
        in_order = dict.fromkeys(parameters[name] for name in inputs_of(model, index, block))
        for group in [list(in_order)] if inputs == "sequential" else [[parameter] for parameter in in_order]:
            seen = inputs_of(model, index, block)
            for layer in (layer for layer in index.of_block(block) if parameters[layer.gram] in group):
                x, stored = seen[layer.gram], layer.weight(model)
                stored = stored.T if layer.transposed else stored
                weight, gram = stored.clone(), (x.T @ x).float() if len(x) else torch.eye(layer.inputs)
                if share and not layer.fused:
                    weight = moved(weight, inputs_of(dense, index, block)[layer.gram], x, share)
                refined = refine(weight, gram, chosen(layer, weight, gram), PATTERN)
                stored.copy_(weight * refined.mask if refined.weight is None else refined.weight)
                pruned[layer.name] = refined.mask
    return pruned


@pytest.mark.filterwarnings("ignore:.*inputs of experts received fewer")
@pytest.mark.parametrize("inputs", ["sequential", "true_sequential"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", [*DENSE, *MIXTURE])
def test_masks_are_those_of_whole_forwards(tmp_path, family, attention, inputs):
    attention = None if family == "gemma2" else attention
    folder, model, index = saved(tmp_path, family, attention)
    found = merge_pruned([block.pruned for block in refine(tmp_path, folder, model, index, inputs)]).masks
    expected = plain(tiny_model(family, attention), index, inputs)
    assert found.keys() == expected.keys()
    for name, mask in expected.items():
        assert (found[name] != mask).double().mean() <= 0.01  # float32 sums in another order may turn a near tie


@pytest.mark.filterwarnings("ignore:.*inputs of experts received fewer")
@pytest.mark.parametrize("family", [*DENSE, *MIXTURE])
def test_weights_make_up_for_changed_inputs_as_in_whole_forwards(tmp_path, family):
    folder, model, index = saved(tmp_path, family)
    blocks = refine(tmp_path, folder, model, index, "true_sequential", share=0.5)
    found = merge_pruned([block.pruned for block in blocks])
    expected = tiny_model(family)
    masks = plain(expected, index, "true_sequential", dense=tiny_model(family), share=0.5)
    separate = {layer.name for layer in index.layers if not layer.fused}
    assert found.weights.keys() == separate
    assert {record.name for block in blocks for record in block.records if record.updated} == separate
    for layer in index.layers:
        assert (found.masks[layer.name] != masks[layer.name]).double().mean() <= 0.01
        if layer.name in separate:
            stored = layer.weight(expected)
            both = found.masks[layer.name] & masks[layer.name]
            weight, reference = found.weights[layer.name], stored.T if layer.transposed else stored
            torch.testing.assert_close(weight[both], reference[both], rtol=1e-3, atol=1e-5)
            assert not weight[~found.masks[layer.name]].any()


def test_the_first_inputs_have_not_changed_and_later_ones_have(tmp_path):
    folder, model, index = saved(tmp_path)
    blocks = refine(tmp_path, folder, model, index, "true_sequential", share=1.0)
    weights = merge_pruned([block.pruned for block in blocks]).weights
    same = [
        layer.name
        for layer in index.layers
        if not (weights[layer.name] - read_weight(folder, layer))[weights[layer.name] != 0].any()
    ]
    assert same == [layer.name for layer in index.of_block(0)[:3]]


@torch.no_grad()
def test_what_is_made_up_for_brings_the_output_nearer_to_that_of_the_dense_model(tmp_path):
    folder, dense, index = saved(tmp_path)
    expected, errors = dense(WINDOWS.long()).logits, []
    for share in (0.0, 0.5):
        pruned, model = tiny_model("llama"), tiny_model("llama")
        for block in refine(tmp_path / str(share), folder, model, index, "true_sequential", share=share):
            apply_pruned(pruned, index.of_block(block.records[0].block), block.pruned)
        errors.append((pruned(WINDOWS.long()).logits - expected).square().sum())
    assert errors[1] < errors[0]


def test_dense_inputs_that_are_not_finite_name_their_layer(tmp_path):
    folder, model, index = saved(tmp_path)
    targets = refinement(folder, model, index, "true_sequential", share=0.5)
    up, whole = model.model.layers[0].mlp.up_proj.weight, targets.targets.forward.feed

    def feed(batch):
        """Run the dense model's windows alone through a weight of NaN."""
        kept, up.data = up.data, up.data * torch.nan
        whole(batch)
        up.data = kept

    targets.targets.forward.feed = feed
    with pytest.raises(NumericalError, match=r"^model\.layers\.0\.mlp\.down_proj: NaN or infinity in its inputs"):
        list(targets.refine(FinishedBlocks(tmp_path, PROVENANCE), Bar()))


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_dense_targets_go_on_after_a_stop(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(blockwise, "SECONDS_BETWEEN_SAVES", seconds)
    (folder, model, index), inputs = saved(tmp_path), "true_sequential"
    expected = refine(tmp_path / "whole", folder, model, index, inputs, share=0.5)
    for stop, kept in product(range(index.blocks), ("", "dense")):
        scratch = tmp_path / f"{stop}{kept}"
        blocks = refinement(folder, tiny_model("llama"), index, inputs, share=0.5).refine(
            FinishedBlocks(scratch, PROVENANCE), Bar(), Checkpoint(scratch)
        )
        for _ in range(stop + 1):
            next(blocks)
        blocks.close()
        (scratch / kept / "states.safetensors").unlink(missing_ok=True)  # as if it had been stopped before it was saved
        again = refine(scratch, folder, tiny_model("llama"), index, inputs, share=0.5)
        for one, other in zip(expected, again, strict=True):
            assert one.records == other.records
            assert all(torch.equal(weight, other.pruned.weights[name]) for name, weight in one.pruned.weights.items())


def test_refiners_know_the_windows_and_the_name_of_their_layer(tmp_path, monkeypatch):
    folder, model, index = saved(tmp_path)
    known, run_chain = [], refining.run_chain

    def listen(*arguments):
        known.append(arguments[6])
        return run_chain(*arguments)

    monkeypatch.setattr(refining, "run_chain", listen)
    refine(tmp_path, folder, model, index, "sequential")
    assert [extra.name for extra in known] == [layer.name for layer in index.layers]
    assert {extra.windows for extra in known} == {len(WINDOWS)}
    assert {extra.tokens for extra in known} == {WINDOWS.numel()}


@pytest.mark.parametrize("inputs", ["sequential", "true_sequential"])
def test_updated_weights_are_what_later_layers_see(tmp_path, inputs):
    folder, model, index = saved(tmp_path)
    well_posed = least_squares.LeastSquares(damping=0.1, tolerance=1e-6)
    blocks = refine(tmp_path, folder, model, index, inputs, settings=well_posed)
    updated = merge_pruned([block.pruned for block in blocks]).weights
    expected = tiny_model("llama")
    plain(expected, index, inputs, partial(least_squares.least_squares, settings=well_posed))
    for name, weight in updated.items():
        torch.testing.assert_close(weight, expected.get_submodule(name).weight.data, rtol=1e-3, atol=1e-5)


def test_true_sequential_differs_from_sequential_only_where_pruned_layers_come_before(tmp_path):
    folder, model, index = saved(tmp_path)
    block, layer_by_layer = (
        merge_pruned([block.pruned for block in refine(tmp_path / name, folder, model, index, name)]).masks
        for name in ("sequential", "true_sequential")
    )
    same = [layer.name for layer in index.of_block(0) if torch.equal(block[layer.name], layer_by_layer[layer.name])]
    assert same == [f"model.layers.0.self_attn.{kind}_proj" for kind in "qkv"]


@pytest.mark.parametrize("seconds", [0.0, 60.0])
@pytest.mark.parametrize("inputs", ["sequential", "true_sequential"])
def test_what_goes_on_after_a_stop_ends_the_same(tmp_path, monkeypatch, inputs, seconds):
    monkeypatch.setattr(blockwise, "SECONDS_BETWEEN_SAVES", seconds)
    folder, model, index = saved(tmp_path)
    expected = refine(tmp_path / "whole", folder, model, index, inputs)
    for stop in range(index.blocks):
        checkpoint, finished = Checkpoint(tmp_path / str(stop)), FinishedBlocks(tmp_path / str(stop), PROVENANCE)
        blocks = refinement(folder, tiny_model("llama"), index, inputs).refine(finished, Bar(), checkpoint)
        for _ in range(stop + 1):
            next(blocks)
        blocks.close()
        again = refine(tmp_path / str(stop), folder, tiny_model("llama"), index, inputs)
        for one, other in zip(expected, again, strict=True):
            assert one.records == other.records
            assert all(torch.equal(mask, other.pruned.masks[name]) for name, mask in one.pruned.masks.items())


@pytest.mark.parametrize("inputs", ["sequential", "true_sequential"])
def test_a_damaged_block_is_refined_again_whatever_was_saved_after_it(tmp_path, monkeypatch, inputs):
    monkeypatch.setattr(blockwise, "SECONDS_BETWEEN_SAVES", 0.0)
    folder, model, index = saved(tmp_path)
    expected = refine(tmp_path / "scratch", folder, model, index, inputs)
    (tmp_path / "scratch" / "block_000" / "cost.json").write_text("damaged")
    again = refine(tmp_path / "scratch", folder, model, index, inputs)
    for one, other in zip(expected, again, strict=True):
        assert one.records == other.records


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_little_memory_for_gram_matrices_changes_nothing(tmp_path, share):
    folder, model, index = saved(tmp_path)
    inputs = "true_sequential" if share else "sequential"
    much, little = (
        refine(tmp_path / str(size), folder, model, index, inputs, gram_bytes=size, share=share) for size in (2**30, 1)
    )
    for one, other in zip(much, little, strict=True):
        assert one.records == other.records


def test_held_out_windows_reach_the_refiners_that_ask_for_them(tmp_path):
    folder, model, index = saved(tmp_path)
    stopped = refine(
        tmp_path, folder, model, index, "sequential", settings=sparseswaps.SparseSwaps(early_stopping_interval=1)
    )
    assert sum(layer.swaps for block in stopped for layer in block.records) > 0
