"""LoRA on pruned models: names, training and merging."""

import pytest
import torch
from families import random_windows, save
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.optim.optimizer import _global_optimizer_post_hooks
from training import RATE, kept_positions, train, trainable

from prunelib.errors import ModelError, PatternError
from prunelib.export.verification import verify
from prunelib.model.adapters import without_adapters
from prunelib.model.masked import apply_masks, masked_layers
from prunelib.training.keep_masks import KeepMasks
from prunelib.training.lora import merge

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # which peft asks for

TARGETS = {
    "llama": {"target_modules": ["q_proj", "down_proj"]},
    "gpt2": {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
    "mixtral": {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
}
TOKENS = random_windows(samples=2, length=12).long()


def adapted(family, **more):
    """A pruned model with adapters that are no longer zero, and its masks."""
    model, masks = trainable(family, torch.float32)
    apply_masks(model, masks)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, **TARGETS[family], **more))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.2)
    return model, masks


@pytest.mark.parametrize("family", TARGETS)
def test_layers_have_the_names_of_the_model_without_adapters(family):
    plain, masks = trainable(family, torch.float32)
    expected = masked_layers(plain, masks)
    model, _ = adapted(family)
    before, names = model(TOKENS).logits, dict(model.named_modules()).keys()
    with without_adapters(model) as base:
        assert masked_layers(base, masks) == expected
    apply_masks(model, masks)
    assert dict(model.named_modules()).keys() == names
    assert torch.equal(model(TOKENS).logits, before)


@pytest.mark.parametrize("family", TARGETS)
def test_a_merge_keeps_the_zeros_and_the_update_of_kept_weights(family):
    model, masks = adapted(family)
    dense = {name: weight.clone() for name, weight in adapted(family)[0].merge_and_unload().named_parameters()}
    merged = merge(model, masks)
    assert verify(merged, masks, "2:4").intact
    kept = kept_positions(merged, masks)
    assert dense.keys() == dict(merged.named_parameters()).keys()
    filled = False
    for name, weight in merged.named_parameters():
        everywhere = torch.ones(weight.shape, dtype=bool)
        expected = dense[name].masked_fill(~kept.get(name, everywhere), 0)
        filled |= not torch.equal(expected, dense[name])
        assert torch.equal(weight, expected)
        assert not weight[weight == 0].signbit().any()
    assert filled


def test_adapters_train_and_the_base_is_not_watched(tmp_path):
    model, masks = adapted("llama")
    base = {name: weight.clone() for name, weight in model.named_parameters() if "lora" not in name}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    with KeepMasks(masks).on(model):
        assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())
        train(trained, lambda tokens: model(tokens, labels=tokens).loss, torch.optim.AdamW(trained, lr=RATE))
    assert all(torch.equal(weight, base[name]) for name, weight in model.named_parameters() if name in base)
    merged = merge(model, masks)
    assert verify(save(merged, tmp_path / "merged"), masks, "2:4").intact
    assert not _global_optimizer_post_hooks


def test_a_base_that_trains_beside_its_adapters_is_watched():
    model, masks = adapted("llama")
    model.requires_grad_(True)
    weights = list(model.parameters())
    with KeepMasks(masks).on(model):
        train(weights, lambda tokens: model(tokens, labels=tokens).loss, torch.optim.AdamW(weights, lr=RATE))
    assert verify(model.unload(), masks, "2:4").intact


def test_what_does_not_fit_is_refused_before_the_merge():
    model, masks = adapted("llama")
    before = model(TOKENS).logits
    with pytest.raises(PatternError, match=r"nothing\.here"):
        merge(model, {**masks, "nothing.here": next(iter(masks.values()))})
    name = min(masks)
    with pytest.raises(PatternError, match=name):
        merge(model, {**masks, name: masks[name][:1]})
    assert torch.equal(model(TOKENS).logits, before)
    with pytest.raises(ModelError, match="adapters"):
        verify(model.get_base_model(), masks)
    plain, _ = trainable("llama", torch.float32)
    prompt = get_peft_model(plain, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    for other in (trainable("llama", torch.float32)[0], prompt):
        with pytest.raises(ModelError, match=r"expected a peft\.PeftModel"):
            merge(other, masks)
