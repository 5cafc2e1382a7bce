"""Training under masks, against an optimiser over the kept weights alone."""

import contextlib
from functools import partial

import pytest
import torch
from families import random_windows
from torch.optim.optimizer import _global_optimizer_post_hooks
from training import ACCUMULATED, CLIP, DECAY, RATE, KeptAlone, batches, kept_positions, train, trainable
from transformers import Trainer, TrainerCallback, TrainingArguments

from prunelib.errors import ModelError, PatternError
from prunelib.model.masked import apply_masks
from prunelib.training.keep_masks import KeepMasks

SGD = partial(torch.optim.SGD, lr=RATE, weight_decay=DECAY)
OPTIMISERS = {
    "adamw": partial(torch.optim.AdamW, lr=RATE, weight_decay=DECAY),
    "adam": partial(torch.optim.Adam, lr=RATE, weight_decay=DECAY, amsgrad=True),
    "momentum": partial(SGD, momentum=0.9, nesterov=True),
}


def loss_of(model):
    return lambda tokens: model(input_ids=tokens, labels=tokens, use_cache=False).loss


def pruned_weights(model, masks):
    """The pruned weights of each masked parameter."""
    return [model.get_parameter(name)[~kept] for name, kept in kept_positions(model, masks).items()]


def check_zero(model, masks):
    for pruned in pruned_weights(model, masks):
        assert not pruned.count_nonzero()
        assert not pruned.signbit().any()


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_kept_weights_train_as_if_alone(family, optimiser):
    model, masks = trainable(family)
    alone = KeptAlone(model, masks)
    expected = train(alone.leaves.values(), alone.loss, OPTIMISERS[optimiser](alone.leaves.values()))
    parameters = list(model.parameters())
    fitted = OPTIMISERS[optimiser](parameters)
    with KeepMasks(masks).on(model):
        norms = train(parameters, loss_of(model), fitted)
    alone.check(model)
    assert norms == pytest.approx(expected, rel=1e-9)
    assert min(norms) > CLIP
    for name, kept in kept_positions(model, masks).items():
        for moment in fitted.state[model.get_parameter(name)].values():
            assert moment.ndim == 0 or not moment[~kept].count_nonzero()


def trainer_of(model, folder, callbacks, **more):
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=3,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=ACCUMULATED,
        learning_rate=RATE,
        weight_decay=DECAY,
        max_grad_norm=CLIP,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        train_sampling_strategy="sequential",
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        logging_steps=1,
        **more,
    )
    data = [{"input_ids": tokens[0], "labels": tokens[0]} for tokens in batches()]
    return Trainer(model, arguments, train_dataset=data, callbacks=callbacks)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_the_trainer_trains_kept_weights_as_if_alone(family, tmp_path):
    model, masks = trainable(family)
    alone = KeptAlone(model, masks)
    trainer = trainer_of(model, tmp_path, [KeepMasks(masks)])
    decayed = set(trainer.get_decay_parameter_names(model))
    groups = [
        {"params": [leaf for name, leaf in alone.leaves.items() if (name in decayed) == with_decay], "weight_decay": d}
        for with_decay, d in ((True, DECAY), (False, 0.0))
    ]
    norms = train(alone.leaves.values(), alone.loss, torch.optim.AdamW(groups, lr=RATE))
    trainer.train()
    alone.check(model)
    logged = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert logged == pytest.approx(norms, rel=1e-6)
    assert not _global_optimizer_post_hooks


class Failing(TrainerCallback):
    def on_step_end(self, *_, **__):
        raise RuntimeError("stopped")


def test_a_training_that_failed_leaves_no_second_hook(tmp_path):
    model, masks = trainable("llama")
    keep = KeepMasks(masks)
    with pytest.raises(RuntimeError, match="stopped"):
        trainer_of(model, tmp_path, [keep, Failing()]).train()
    trainer_of(model, tmp_path, [keep]).train()
    check_zero(model, masks)
    assert not _global_optimizer_post_hooks
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())


def test_a_checkpoint_and_what_goes_on_from_it_keep_the_zeros(tmp_path):
    model, masks = trainable("llama", torch.float32)
    trainer_of(model, tmp_path, [KeepMasks(masks)]).train()
    trainer = trainer_of(model, tmp_path, [KeepMasks(masks)])
    trainer.args.save_strategy, trainer.args.save_steps = "steps", 2
    trainer.train()
    trainer = trainer_of(model, tmp_path, [KeepMasks(masks)])
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    check_zero(model, masks)


def test_momentum_of_dense_training_moves_no_pruned_weight():
    model, masks = trainable("llama")
    optimizer = SGD(model.parameters(), momentum=0.9)
    train(list(model.parameters()), loss_of(model), optimizer)
    assert all(pruned.count_nonzero() for pruned in pruned_weights(model, masks))
    with KeepMasks(masks).on(model):
        check_zero(model, masks)
        train(list(model.parameters()), loss_of(model), optimizer)
        check_zero(model, masks)


def test_an_optimiser_that_mixes_entries_moves_no_pruned_weight():
    model, masks = trainable("llama", torch.float32)
    optimizer = torch.optim.Muon([model.get_parameter(name) for name in kept_positions(model, masks)], lr=RATE)
    with KeepMasks(masks).on(model):
        train(list(model.parameters()), loss_of(model), optimizer)
    check_zero(model, masks)


def test_a_decay_beyond_the_weight_leaves_no_negative_zero():
    model, masks = trainable("llama")
    with KeepMasks(masks).on(model):
        train(list(model.parameters()), loss_of(model), torch.optim.AdamW(model.parameters(), lr=1.5, weight_decay=1))
    check_zero(model, masks)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_overflow_at_pruned_weights_is_no_overflow(value):
    model, masks = trainable("llama")
    name, kept = next(iter(kept_positions(model, masks).items()))
    weight = model.get_parameter(name)
    with KeepMasks(masks).on(model):
        (weight * torch.where(kept, 1.0, value)).sum().backward()
    assert torch.equal(weight.grad, kept.double())


def test_half_precision_and_autocast():
    for dtype, context in (
        (torch.bfloat16, contextlib.nullcontext()),
        (torch.float32, torch.autocast("cpu", torch.bfloat16)),
    ):
        model, masks = trainable("llama", dtype)
        before = [weight.detach().clone() for weight in model.parameters()]
        with KeepMasks(masks).on(model), context:
            train(list(model.parameters()), loss_of(model), torch.optim.AdamW(model.parameters(), lr=RATE))
        check_zero(model, masks)
        assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_afterwards_the_weights_are_free():
    model, masks = trainable("llama")
    with KeepMasks(masks).on(model):
        pass
    check_zero(model, masks)
    train(list(model.parameters()), loss_of(model), SGD(model.parameters()))
    assert all(pruned.count_nonzero() for pruned in pruned_weights(model, masks))
    assert not _global_optimizer_post_hooks


def test_an_optimiser_of_another_model_is_left_alone():
    model, masks = trainable("llama")
    other, _ = trainable("llama")
    with KeepMasks(masks).on(model):
        train(list(other.parameters()), loss_of(other), SGD(other.parameters()))
    assert all(pruned.count_nonzero() for pruned in pruned_weights(other, masks))


def test_the_model_stays_in_its_modes_and_may_use_any_experts():
    model, masks = trainable("mixtral", torch.float32)
    model.set_experts_implementation("batched_mm")
    model.train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    apply_masks(model, masks)
    with KeepMasks(masks).on(model):
        train(list(model.parameters()), loss_of(model), SGD(model.parameters()))
    check_zero(model, masks)
    assert [module.training for module in model.modules()] == before
    assert set(model.get_experts_implementation().values()) == {"batched_mm"}


def test_a_wrapped_model_is_refused():
    model, masks = trainable("llama")
    for wrapped in (torch.nn.DataParallel(model), torch.compile(model, backend="eager")):
        with pytest.raises(ModelError, match=type(wrapped).__name__), KeepMasks(masks).on(wrapped):
            pass


def test_sharded_and_quantised_parameters_are_refused():
    class Other(torch.Tensor):
        pass

    model, masks = trainable("llama")
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.data.as_subclass(Other))
    with pytest.raises(ModelError, match=r"up_proj\.weight.*Other"), KeepMasks(masks).on(model):
        pass


def test_masks_of_another_model_change_nothing():
    model, masks = trainable("llama")
    name = next(iter(masks))
    tokens = random_windows(samples=1, length=8).long()
    before = model(tokens).logits
    for wrong in ({**masks, "model.layers.9.x": masks[name]}, {**masks, name: masks[name][:1]}):
        with pytest.raises(PatternError), KeepMasks(wrong).on(model):
            pass
    assert torch.equal(model(tokens).logits, before)
    assert not _global_optimizer_post_hooks
