"""Loading, finding layers and sharing in ten families, masks on live models, and every refusal."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import DENSE, LENGTH, save, tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from prunelib.errors import ArtifactError, ModelError, NumericalError, ParamsError, PatternError
from prunelib.masks.pruned import Pruned
from prunelib.model.layers import Layer, LayerIndex, dense_by_reason, read_index, require_coverage, write_index
from prunelib.model.structure import check_length, decoder_blocks, find_layers, load_model, load_tokenizer
from prunelib.model.weights import achieved_sparsity, apply_pruned, check_pruned, read_weight
from prunelib.runtime import store

SEPARATE = [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
SHARING = {
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"], SEPARATE),
    "phi3": [["o_proj"], ["qkv_proj"], ["gate_up_proj"], ["down_proj"]],
    "opt": [["k_proj", "v_proj", "q_proj"], ["out_proj"], ["fc1"], ["fc2"]],
    "gpt_neox": [["query_key_value"], ["dense"], ["dense_h_to_4h"], ["dense_4h_to_h"]],
    "gpt2": [["c_attn"], ["attn.c_proj"], ["c_fc"], ["mlp.c_proj"]],
}


@pytest.fixture(scope="module", params=list(DENSE))
def dense(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    family = request.param
    return family, save(tiny_model(family), tmp_path_factory.mktemp(family))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save(tiny_model("llama"), tmp_path / "llama")


def halves(layers: tuple[Layer, ...], seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {layer.name: torch.rand(layer.rows, layer.inputs, generator=draw) < 0.5 for layer in layers}


def edit_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file, {"format": "pt"})


def weight_of(model: PreTrainedModel, layer: Layer) -> torch.Tensor:
    weight = model.get_submodule(layer.name).weight
    return weight.T if layer.transposed else weight


# Families


def test_every_family_is_found_with_the_inputs_it_shares(dense: tuple[str, Path]) -> None:
    family, folder = dense
    index = find_layers(load_model(folder, "float32", "cpu"), folder)
    assert (index.blocks, index.coverage, index.uncovered) == (2, 1.0, ())
    for block in range(2):
        groups: dict[str, list[str]] = {}
        for layer in index.of_block(block):
            groups.setdefault(layer.gram, []).append(layer.kind)
        assert list(groups.values()) == SHARING[family]
        assert all(gram.startswith(f"{index.block_list}.{block}.") for gram in groups)
        assert [layer.name for layer in index.readers(block)] == list(groups)
    require_coverage(index)


def test_weights_are_read_as_rows_by_inputs(dense: tuple[str, Path]) -> None:
    family, folder = dense
    model = load_model(folder, "float32", "cpu")
    index = find_layers(model, folder)
    for layer in index.layers:
        weight = read_weight(folder, layer)
        assert weight.is_contiguous()
        assert torch.equal(weight, weight_of(model, layer))
        x = torch.randn(3, layer.inputs)
        module = model.get_submodule(layer.name)
        bias = 0 if module.bias is None else module.bias
        torch.testing.assert_close(module(x), x @ weight.T + bias)
    assert {layer.transposed for layer in index.layers} == {family == "gpt2"}


def test_masks_set_exact_zeros_and_nothing_else(dense: tuple[str, Path]) -> None:
    _, folder = dense
    model = load_model(folder, "float32", "cpu")
    layers = find_layers(model, folder).layers
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = halves(layers)
    apply_pruned(model, layers, Pruned(masks, {}))
    check_pruned(model, layers, masks, folder, {})
    for layer in layers:
        dense_weight, mask = read_weight(folder, layer), masks[layer.name]
        assert torch.equal(weight_of(model, layer), torch.where(mask, dense_weight, 0.0))
        assert not weight_of(model, layer)[~mask].signbit().any()
    touched = {f"{layer.name}.weight" for layer in layers}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items() if name not in touched)
    kept = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    assert achieved_sparsity(model, layers) == pytest.approx(1 - kept, abs=1e-12)


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "opt"])
def test_tied_embeddings_stay_tied_and_dense(family: str, tmp_path: Path) -> None:
    folder = save(tiny_model(family), tmp_path)
    model = load_model(folder, "float32", "cpu")
    before = model.get_input_embeddings().weight.clone()
    layers = find_layers(model, folder).layers
    apply_pruned(model, layers, Pruned(halves(layers), {}))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_gpt2_of_the_hub_has_names_without_the_base_prefix(tmp_path: Path) -> None:
    folder = save(tiny_model("gpt2"), tmp_path)
    file = folder / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    index = find_layers(load_model(folder, "float32", "cpu"), folder)
    first = index.layers[0]
    assert (first.name, first.tensor) == ("h.0.attn.c_attn", "h.0.attn.c_attn.weight")
    assert (first.module, first.gram) == ("transformer.h.0.attn.c_attn", "h.0.attn.c_attn")
    assert first.parameter == "transformer.h.0.attn.c_attn.weight"


def test_shards_are_read_like_one_file(llama: Path, tmp_path: Path) -> None:
    sharded = save(tiny_model("llama"), tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    index = find_layers(load_model(sharded, "float32", "cpu"), sharded)
    assert index == find_layers(load_model(llama, "float32", "cpu"), llama)
    assert all(torch.equal(read_weight(sharded, layer), read_weight(llama, layer)) for layer in index.layers)


def test_the_index_of_shards_is_read_again_only_if_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tiny_model("llama"), tmp_path / "sharded", max_shard_size="20KB")
    layers, reads, read = find_layers(load_model(folder, "float32", "cpu"), folder).layers, [], store.read_json
    monkeypatch.setattr(store, "read_json", lambda path: reads.append(path) or read(path))
    for layer in layers:
        read_weight(folder, layer)
    assert not reads
    index = folder / "model.safetensors.index.json"
    changed = json.loads(index.read_text())
    del changed["weight_map"][layers[0].tensor]
    index.write_text(json.dumps(changed))
    with pytest.raises(ArtifactError, match=f"no tensor {re.escape(layers[0].tensor)}"):
        read_weight(folder, layers[0])
    assert len(reads) == 1


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("loaded", ["bfloat16", "float32"])
def test_the_folder_is_compared_in_the_model_s_dtype(stored: torch.dtype, loaded: str, tmp_path: Path) -> None:
    folder = save(tiny_model("llama", dtype=stored), tmp_path)
    model = load_model(folder, loaded, "cpu")
    assert model.dtype == getattr(torch, loaded)
    layers = find_layers(model, folder).layers
    assert read_weight(folder, layers[0]).dtype == stored
    apply_pruned(model, layers, Pruned(halves(layers), {}))
    check_pruned(model, layers, halves(layers), folder, {})


# Finding


def test_experts_that_are_multiplied_another_way_are_refused_with_the_share_covered(tmp_path: Path) -> None:
    folder = save(tiny_model("gpt_oss"), tmp_path)
    index = find_layers(load_model(folder, "float32", "cpu"), folder)
    assert 0 < index.coverage < 0.5
    share = re.escape(f"only {index.coverage:.1%} of")
    with pytest.raises(
        ModelError, match=rf"^allow_uncovered: false, .* {share}.*mlp\.experts\.gate_up_proj \(4, 32, 96\)"
    ):
        require_coverage(index)
    assert [layer.kind for layer in index.of_block(1)] == ["q_proj", "k_proj", "v_proj", "o_proj"]


def test_an_input_changed_in_place_is_another_input(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    mlp = model.model.layers[0].mlp

    def forward(x: torch.Tensor) -> torch.Tensor:
        gate = mlp.gate_proj(x)
        x.mul_(2)
        return mlp.down_proj(gate * mlp.up_proj(x))

    mlp.forward = forward
    grams = {layer.kind: layer.gram for layer in find_layers(model, llama).of_block(0)}
    assert grams["gate_proj"] != grams["up_proj"]
    assert grams["q_proj"] == grams["k_proj"] == grams["v_proj"]


def test_blocks_never_share_a_gram(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    constant = torch.ones(1, 2, 32)
    for block in model.model.layers:
        mlp = block.mlp
        mlp.forward = lambda _, mlp=mlp: mlp.down_proj(mlp.gate_proj(constant) * mlp.up_proj(constant))
    index = find_layers(model, llama)
    assert not set(index.readers(0)) & set(index.readers(1))
    assert len(index.readers(0)) == len(index.readers(1)) == 4


def never_called(block: torch.nn.Module) -> None:
    block.mlp.spare = torch.nn.Linear(4, 4)


def used_without_its_module(block: torch.nn.Module) -> None:
    mlp, block.mlp.spare = block.mlp, torch.nn.Linear(32, 32, bias=False)
    plain = mlp.forward
    mlp.forward = lambda x: plain(x @ mlp.spare.weight)


def called_twice(block: torch.nn.Module) -> None:
    mlp, block.mlp.spare = block.mlp, torch.nn.Linear(32, 32, bias=False)
    plain = mlp.forward
    mlp.forward = lambda x: plain(mlp.spare(mlp.spare(x)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [(never_called, "not called"), (used_without_its_module, "not called"), (called_twice, "not called once")],
)
def test_a_matrix_that_cannot_be_calibrated_is_uncovered(change: Callable, reason: str, llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    whole = find_layers(model, llama)
    change(model.model.layers[1])
    index = find_layers(model, llama)
    assert {layer.name for layer in index.layers} == {layer.name for layer in whole.layers}
    (spare,) = index.uncovered
    assert (spare.name, reason in spare.reason) == ("model.layers.1.mlp.spare.weight", True)
    weights = sum(weight.numel() for weight in model.model.layers.parameters() if weight.ndim > 1)
    assert index.coverage == pytest.approx(1 - model.model.layers[1].mlp.spare.weight.numel() / weights)
    with pytest.raises(ModelError, match=r"allow_uncovered: false.*model\.layers\.1\.mlp\.spare\.weight"):
        require_coverage(index)
    (line,) = dense_by_reason(index)
    assert "1 matrices" in line
    assert spare.name in line
    assert spare.reason in line


def test_a_matrix_of_two_layers_is_uncovered(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    model.model.layers[1].mlp.up_proj = model.model.layers[0].mlp.up_proj
    (shared,) = find_layers(model, llama).uncovered
    assert (shared.name, shared.reason) == ("model.layers.0.mlp.up_proj.weight", "shared between layers")


def test_a_bias_in_the_shape_of_a_matrix_is_no_matrix(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    model.model.layers[0].mlp.extra = torch.nn.Parameter(torch.zeros(1, 1, 32))
    assert find_layers(model, llama) == find_layers(load_model(llama, "float32", "cpu"), llama)


def test_a_model_without_prunable_layers_is_refused(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    for block in model.model.layers:
        block.forward = lambda states, **_: states
    with pytest.raises(ModelError, match=r"LlamaForCausalLM.*model\.layers\.0\..* not called"):
        find_layers(model, llama)


def test_a_model_that_cannot_be_run_over_tokens_is_refused(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    model.model.layers[0].mlp.forward = lambda _: {}["language"]
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: .*KeyError.*language"):
        find_layers(model, llama)


def test_blocks_are_not_confused_with_another_list_of_that_length(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    model.extra = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    assert decoder_blocks(model)[0] == "model.layers"
    model.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match="num_hidden_layers = 7"):
        decoder_blocks(model)


def test_blocks_in_several_lists_are_refused() -> None:
    config = AutoConfig.for_model("xlm", vocab_size=64, emb_dim=32, n_layers=2, n_heads=4)
    with pytest.raises(ModelError, match=r"attentions|ffns"):
        decoder_blocks(AutoModelForCausalLM.from_config(config).eval())


def test_lists_within_blocks_are_no_rivals(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    for block in model.model.layers:
        plain, block.mlp.parts = block.mlp.forward, torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(2))
        block.mlp.forward = lambda x, plain=plain, parts=block.mlp.parts: plain(parts[1](parts[0](x)))
    assert decoder_blocks(model)[0] == "model.layers"


def test_a_model_that_is_not_the_folder_s_is_refused(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    with pytest.raises(ModelError, match=r"^model\.layers\.1\.mlp\.up_proj: its weight in the model is not"):
        find_layers(model, llama)


# Index artifact


def test_index_round_trip_and_refusals(llama: Path, tmp_path: Path) -> None:
    index = find_layers(load_model(llama, "float32", "cpu"), llama)
    path = tmp_path / "layers.json"
    write_index(path, index, "sha of the model")
    assert read_index(path, "sha of the model") == index
    with pytest.raises(ArtifactError, match=r"layers\.json: its model is 'sha of the model', but 'another'"):
        read_index(path, "another")
    broken = store.read_record(path, "layers")
    broken["layers"][3]["rows"] = 0
    store.write_record(path, "layers", broken)
    with pytest.raises(ArtifactError, match=r"damaged, layers\.3\.rows"):
        read_index(path, "sha of the model")
    path.write_text("[1]")
    with pytest.raises(ArtifactError, match="expected 'layers'"):
        read_index(path, "sha of the model")


# Masks


@pytest.fixture
def masked(llama: Path) -> tuple[PreTrainedModel, LayerIndex, dict[str, torch.Tensor], Path]:
    model = load_model(llama, "float32", "cpu")
    index = find_layers(model, llama)
    masks = halves(index.layers)
    apply_pruned(model, index.layers, Pruned(masks, {}))
    return model, index, masks, llama


def test_negative_zero_in_a_pruned_place_is_found(masked: tuple) -> None:
    model, index, masks, folder = masked
    layer = index.layers[4]
    row, column = (~masks[layer.name]).nonzero()[0]
    model.get_submodule(layer.name).weight[row, column] = -0.0
    with pytest.raises(ModelError, match=rf"^{layer.name}: 1 of \d+ pruned weights are not exactly \+0\.0$"):
        check_pruned(model, index.layers, masks, folder, {})


def test_the_dense_model_is_found_out(masked: tuple) -> None:
    _, index, masks, folder = masked
    dense = load_model(folder, "float32", "cpu")
    assert achieved_sparsity(dense, index.layers) == 0
    with pytest.raises(ModelError, match="pruned weights are not exactly"):
        check_pruned(dense, index.layers, masks, folder, {})


def test_two_masks_on_top_of_each_other_are_found_out(masked: tuple) -> None:
    model, index, _, folder = masked
    second = halves(index.layers, seed=1)
    apply_pruned(model, index.layers, Pruned(second, {}))
    with pytest.raises(ModelError, match="kept weights "):
        check_pruned(model, index.layers, second, folder, {})


def test_kept_weights_may_be_zero_in_the_dense_model(llama: Path) -> None:
    edit_tensors(llama, model__layers__0__mlp__up_proj__weight=torch.zeros(48, 32))
    model = load_model(llama, "float32", "cpu")
    layers = find_layers(model, llama).layers
    masks = halves(layers)
    apply_pruned(model, layers, Pruned(masks, {}))
    check_pruned(model, layers, masks, llama, {})


def test_infinite_weights_are_cleared_too(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    layers = find_layers(model, llama).layers
    model.get_submodule(layers[0].name).weight.fill_(-torch.inf)
    masks = {layer.name: torch.zeros(layer.rows, layer.inputs, dtype=torch.bool) for layer in layers}
    apply_pruned(model, layers, Pruned(masks, {}))
    assert achieved_sparsity(model, layers) == 1
    check_pruned(model, layers, masks, llama, {})


def test_masks_that_do_not_fit_change_nothing(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    layers = find_layers(model, llama).layers
    good = halves(layers)
    first, last = layers[0].name, layers[-1].name
    misfits = {
        rf"masks: 1 of 14 layers are missing, first {last}": {k: v for k, v in good.items() if k != last},
        r"masks: 1 match no layer of the model, first lm_head": {**good, "lm_head": good[first]},
        rf"mask of {last}: shape \(48, 32\), expected \(32, 48\)": {**good, last: good[last].T},
        rf"mask of {first}: torch\.float32 of shape \(32, 32\), expected": {**good, first: good[first].float()},
    }
    for message, masks in misfits.items():
        with pytest.raises(PatternError, match=message):
            apply_pruned(model, layers, Pruned(masks, {}))
    assert achieved_sparsity(model, layers) == 0


# Broken folders


def refusal(folder: Path) -> str:
    with pytest.raises((ArtifactError, ModelError)) as caught:
        load_model(folder, "float32", "cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return f"{caught.type.__name__}: {caught.value}".replace(str(folder), "FOLDER")


def test_loading_leaves_no_gradients_and_prints_nothing(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_model(llama, "float32", "cpu")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert capfd.readouterr() == ("", "")


def test_missing_files_are_named(llama: Path) -> None:
    assert refusal(llama / "nowhere").startswith("ArtifactError: FOLDER: no config.json")
    (llama / "model.safetensors").unlink()
    assert refusal(llama).startswith("ArtifactError: FOLDER: no model.safetensors or model.safetensors.index.json")
    (llama / "config.json").unlink()
    assert refusal(llama).startswith("ArtifactError: FOLDER: no config.json")


def test_a_truncated_file_is_named(llama: Path) -> None:
    file = llama / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    assert refusal(llama).startswith("ArtifactError: FOLDER/model.safetensors: truncated, damaged")


@pytest.mark.parametrize("damage", ["gone", "truncated"])
def test_a_broken_shard_is_refused(damage: str, tmp_path: Path) -> None:
    folder = save(tiny_model("llama"), tmp_path, max_shard_size="20KB")
    index = find_layers(load_model(folder, "float32", "cpu"), folder)
    for shard in folder.glob("*.safetensors"):
        shard.unlink() if damage == "gone" else shard.write_bytes(shard.read_bytes()[:100])
    assert refusal(folder).startswith(("ArtifactError: FOLDER", "ModelError: FOLDER"))
    with pytest.raises(ArtifactError, match="no such file" if damage == "gone" else "truncated"):
        read_weight(folder, index.layers[0])


def test_a_damaged_shard_index_is_refused(tmp_path: Path) -> None:
    folder = save(tiny_model("llama"), tmp_path, max_shard_size="20KB")
    (folder / "model.safetensors.index.json").write_text("{}")
    assert refusal(folder).endswith("damaged, expected a weight_map of tensor names to files")


def test_missing_tensors_are_not_filled_with_random_numbers(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit_tensors(llama, model__layers__0__mlp__up_proj__weight=None)
    assert refusal(llama) == (
        "ModelError: FOLDER: 1 tensors of the model are missing, first model.layers.0.mlp.up_proj.weight"
    )
    assert capfd.readouterr() == ("", "")


def test_tensors_of_another_shape_are_refused(llama: Path) -> None:
    edit_tensors(llama, model__layers__0__mlp__up_proj__weight=torch.zeros(3, 3))
    message = "model.layers.0.mlp.up_proj.weight has shape (3, 3), but config.json says (48, 32)"
    assert refusal(llama) == f"ModelError: FOLDER/model.safetensors: {message}"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"model_type": "t5"}, "T5Config"),
        ({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "code.Model"}}, "custom code|mine"),
    ],
)
def test_models_that_transformers_cannot_build_are_refused(change: dict, reason: str, llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, **change}))
    assert re.search(rf"^ModelError: FOLDER: not a causal language model .*({reason})", refusal(llama))


def test_damaged_config_is_refused(llama: Path) -> None:
    (llama / "config.json").write_text("{")
    assert refusal(llama).startswith("ModelError: FOLDER: not a causal language model")


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64])
@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"])
def test_stored_types_that_no_operation_takes_are_refused_before_loading(
    name: str, stored: torch.dtype, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_tensors(llama, **{name: load_file(llama / "model.safetensors")[name].to(stored)})
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", None)
    said = refusal(llama)
    assert said.startswith("ModelError: FOLDER/model.safetensors: 1 ")
    assert name in said
    assert {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64"}[str(stored)[6:]] in said


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_floating_types_are_read(stored: torch.dtype, tmp_path: Path) -> None:
    folder = save(tiny_model("llama", dtype=stored), tmp_path)
    layer = find_layers(load_model(folder, "float32", "cpu"), folder).layers[0]
    assert read_weight(folder, layer).dtype == stored


def test_weights_stored_as_integers_are_refused_and_buffers_are_not(llama: Path) -> None:
    edit_tensors(llama, model__some_buffer=torch.ones(3, dtype=torch.int64))
    layer = find_layers(load_model(llama, "float32", "cpu"), llama).layers[0]
    edit_tensors(llama, **{layer.tensor: read_weight(llama, layer).to(torch.int8)})
    with pytest.raises(ModelError, match=rf"{re.escape(layer.tensor)} is stored as torch\.int8"):
        find_layers(load_model(llama, "float32", "cpu"), llama)


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'])
def test_a_missing_or_damaged_tokenizer_is_refused(content: str | None, llama: Path) -> None:
    if content:
        (llama / "tokenizer.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"no usable tokenizer, expected tokenizer\.json") as caught:
        load_tokenizer(llama)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(value: float, llama: Path) -> None:
    layers = find_layers(load_model(llama, "float32", "cpu"), llama).layers
    edit_tensors(llama, model__layers__0__mlp__up_proj__weight=torch.full((48, 32), value))
    layer = next(layer for layer in layers if layer.name == "model.layers.0.mlp.up_proj")
    with pytest.raises(NumericalError, match=r"model\.layers\.0\.mlp\.up_proj\.weight contains NaN or infinity"):
        read_weight(llama, layer)


def test_weights_of_another_shape_or_model_are_refused(llama: Path) -> None:
    layer = find_layers(load_model(llama, "float32", "cpu"), llama).layers[0]
    with pytest.raises(ArtifactError, match=r"has shape \(32, 32\), expected \(31, 32\)"):
        read_weight(llama, layer.model_copy(update={"rows": 31}))
    with pytest.raises(ArtifactError, match=r"no tensor h\.0\.weight"):
        read_weight(llama, layer.model_copy(update={"tensor": "h.0.weight"}))


def test_windows_longer_than_the_model_are_refused(llama: Path) -> None:
    model = load_model(llama, "float32", "cpu")
    check_length(model, LENGTH, "calibration.length")
    with pytest.raises(ParamsError, match=f"calibration.length = {LENGTH + 1} tokens, but .*64"):
        check_length(model, LENGTH + 1, "calibration.length")
