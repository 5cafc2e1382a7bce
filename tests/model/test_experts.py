"""Mixtures of experts, whose weights transformers fuses, against experts one by one."""

from functools import partial

import pytest
import torch
from brute_force import save_random
from families import DEEPSEEK, MIXTURE, random_model, random_windows, read_by_expert, save, tiny_model
from tiny_configs import WORDS, tiny_config
from transformers import AutoModelForCausalLM

from prunelib.calibration.accumulation import accumulate_grams
from prunelib.calibration.statistics import InputStatistics, or_identity
from prunelib.calibration.windows import in_batches
from prunelib.masks.pruned import Pruned
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.layers import require_coverage
from prunelib.model.structure import find_layers, load_model
from prunelib.model.weights import achieved_sparsity, apply_pruned, check_pruned, read_weight

CPU = torch.device("cpu")
WINDOWS = random_windows(samples=5, length=16)
EXPERTS = 4


@pytest.fixture(scope="module", params=list(MIXTURE))
def mixture(request, tmp_path_factory):
    """A model read from its folder, the folder, and its layers."""
    folder = save(tiny_model(request.param), tmp_path_factory.mktemp(request.param))
    model = load_model(folder, "float32", "cpu")
    return model, folder, find_layers(model, folder)


def of_experts(index, block):
    return [layer for layer in index.of_block(block) if layer.fused]


def test_every_matrix_of_every_expert_is_found_and_gates_stay_dense(mixture):
    model, _, index = mixture
    require_coverage(index)
    for block in range(2):
        held = [weight for name, weight in model.named_parameters() if f"layers.{block}." in name and weight.ndim == 3]
        layers = of_experts(index, block)
        assert sum(layer.rows * layer.inputs for layer in layers) == sum(weight.numel() for weight in held)
        assert len({layer.gram for layer in layers}) == EXPERTS * 2  # what an expert reads, and what it makes of that
    matrices = {name: weight for name, weight in model.named_parameters() if ".layers." in name and weight.ndim > 1}
    gates = matrices.keys() - {layer.parameter for layer in index.layers}
    assert gates == {gate.name for gate in index.uncovered}
    assert {gate.reason for gate in index.uncovered} == {"gate"}
    assert {len(model.get_parameter(name)) for name in gates} <= {1, EXPERTS}
    dense, all_weights = (sum(matrices[name].numel() for name in names) for names in (gates, matrices))
    assert index.coverage == pytest.approx(1 - dense / all_weights)


@pytest.mark.parametrize("family", [*MIXTURE, *DEEPSEEK])
def test_gates_are_found_in_half_precision_too(family, tmp_path):
    model = tiny_model(family, dtype=torch.bfloat16)
    index = find_layers(model, save(model, tmp_path))
    assert {dense.reason for dense in index.uncovered} == {"gate"}
    assert all(
        ".gate." in dense.name or "router" in dense.name or "expert_gate" in dense.name for dense in index.uncovered
    )


def test_experts_that_the_first_tokens_do_not_use_are_found(tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("longcat_flash"), experts_implementation="eager")
    save_random(model.eval(), tmp_path, WORDS)
    model = load_model(tmp_path, "float32", "cpu")
    found = find_layers(model, tmp_path)
    router = model.model.layers[1].mlp.router
    router.e_score_correction_bias[model.config.n_routed_experts :] = 1e6  # block 1: experts without weights alone
    assert any(layer.fused for layer in found.of_block(1))
    assert find_layers(model, tmp_path) == found


LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
AS_MANY_ROWS = {  # keys, values and a shared expert with as many rows as there are experts
    "qwen3_moe": {**MIXTURE["qwen3_moe"], "num_experts": 16},
    "qwen3_next": {
        **MIXTURE["qwen3_moe"],
        **LINEAR,
        "num_experts": 16,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
}


@pytest.mark.parametrize("family", AS_MANY_ROWS)
def test_a_matrix_with_as_many_rows_as_experts_is_no_gate(family, tmp_path):
    model = random_model(family, AS_MANY_ROWS[family])
    index = find_layers(model, save(model, tmp_path))
    rows = {layer.name.partition("layers.1.")[2]: layer.rows for layer in index.of_block(1) if not layer.fused}
    alike = ["self_attn.k_proj", "self_attn.v_proj"]
    if family == "qwen3_next":
        alike += ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"]
    assert {rows[name] for name in alike} == {16}
    gates = {dense.name.partition("layers.1.")[2] for dense in index.uncovered if dense.reason == "gate"} - {""}
    assert gates == {"mlp.gate.weight", *(["mlp.shared_expert_gate.weight"] if family == "qwen3_next" else [])}


def test_weights_are_read_from_the_files_as_the_model_has_them(mixture):
    model, folder, index = mixture
    for layer in index.layers:
        assert torch.equal(read_weight(folder, layer), layer.weight(model))
        assert layer.weight(model).shape == (layer.rows, layer.inputs)


def unfused(model, index):
    """Inputs of every expert's matrices, (tokens, inputs) float64 by layer, from the definition of experts."""
    inputs = {}

    def note(block, module, args):
        for layer in of_experts(index, block):
            inputs.setdefault(layer.name, []).append(read_by_expert(module, args, layer).double())

    handles = [
        module.register_forward_pre_hook(partial(note, int(name.split("layers.")[1][0])))
        for name, module in model.named_modules()
        if name.endswith(".experts")
    ]
    for tokens in WINDOWS.split(2):
        model(input_ids=tokens.long())
    for handle in handles:
        handle.remove()
    return {name: torch.cat(seen) for name, seen in inputs.items()}


@pytest.mark.parametrize("gram_bytes", [1, 2**30])
def test_the_gram_matrix_of_an_expert_is_of_the_tokens_routed_to_it(mixture, gram_bytes):
    model, _, index = mixture
    expected = unfused(model, index)
    batches, parts = in_batches([WINDOWS], 2)
    forward = BlockwiseForward(model, index.block_list, batches, CPU, 2**30)
    for block, (statistics,) in accumulate_grams(forward, index, parts, gram_bytes=gram_bytes):
        for layer in of_experts(index, block):
            x, found = expected[layer.name], statistics[layer.gram]
            assert found.tokens == len(x)
            torch.testing.assert_close(found.gram.double(), x.T @ x, rtol=1e-4, atol=1e-5 * float((x * x).sum() + 1))
            torch.testing.assert_close(found.mean.double(), x.mean(dim=0).nan_to_num(), rtol=1e-4, atol=1e-5)
        read = [statistics[layer.gram].tokens for layer in index.readers(block) if layer.fused]
        assert sum(read) == 2 * 2 * WINDOWS.numel()  # two experts a token, two matrices' inputs an expert


def test_masks_and_updated_weights_reach_the_slices_they_are_for(mixture):
    _, folder, index = mixture
    model, dense = load_model(folder, "float32", "cpu"), load_model(folder, "float32", "cpu")
    draw = torch.Generator().manual_seed(0)
    masks = {layer.name: torch.rand(layer.rows, layer.inputs, generator=draw) < 0.5 for layer in index.layers}
    chosen = of_experts(index, 1)[3]
    updated = {chosen.name: (3 * read_weight(folder, chosen)).masked_fill(~masks[chosen.name], 0)}
    apply_pruned(model, index.layers, Pruned(masks, updated))
    check_pruned(model, index.layers, masks, folder, updated)
    assert achieved_sparsity(model, index.layers) == pytest.approx(0.5, abs=0.02)
    for layer in index.layers:
        expected = updated.get(layer.name, layer.weight(dense) * masks[layer.name])
        assert torch.equal(layer.weight(model), expected)
    touched = {layer.parameter for layer in index.layers}
    for name, weight in model.named_parameters():
        assert name in touched or torch.equal(weight, dense.get_parameter(name))


@pytest.mark.parametrize(("tokens", "changed"), [(0, True), (63, True), (64, False)])
def test_experts_that_saw_too_little_are_pruned_as_if_inputs_were_independent(mixture, tokens, changed):
    _, _, index = mixture
    dense, expert = index.of_block(0)[0], of_experts(index, 0)[0]
    for layer, eye in ((dense, False), (expert, changed)):
        seen = InputStatistics(torch.full((layer.inputs, layer.inputs), 2.0), torch.ones(layer.inputs), tokens)
        assert torch.equal(or_identity(layer, [seen], 64)[0].gram, torch.eye(layer.inputs) if eye else seen.gram)


def test_an_expert_stops_early_by_its_own_held_out_tokens_however_few(mixture):
    _, _, index = mixture
    expert = of_experts(index, 0)[0]

    def statistics(value, tokens):
        return InputStatistics(torch.full((expert.inputs, expert.inputs), value), torch.ones(expert.inputs), tokens)

    many, few, none = statistics(3.0, 64), statistics(2.0, 5), statistics(0.0, 0)
    assert [part.tokens for part in or_identity(expert, [many, few], 64)] == [64, 5]
    assert torch.equal(or_identity(expert, [many, few], 64)[1].gram, few.gram)
    assert torch.equal(or_identity(expert, [many, none], 64)[1].gram, many.gram)
    assert all(torch.equal(part.gram, torch.eye(expert.inputs)) for part in or_identity(expert, [few, many], 64))
