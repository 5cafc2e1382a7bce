"""Windows through a model block by block, against the model's own forward."""

import pytest
import torch
from families import DENSE, MIXTURE, random_windows, tiny_model

from prunelib.errors import ArtifactError, ModelError
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.structure import decoder_blocks

CPU = torch.device("cpu")
WINDOWS = random_windows(samples=5, length=16)
BATCHES = WINDOWS.split(2)
BLOCKS = 2  # of every tiny model


def begin(model, state_bytes=2**30, batches=BATCHES):
    return BlockwiseForward(model, decoder_blocks(model)[0], batches, CPU, state_bytes)


def advance(forward):
    with forward.resident():
        for batch in range(len(forward.batches)):
            forward.keep(batch, forward.run(batch))
    forward.advance()


def finish(forward):
    """The states that the last block leaves of all windows."""
    while forward.block < BLOCKS - 1:
        advance(forward)
    with forward.resident():
        return torch.cat([forward.run(batch) for batch in range(len(forward.batches))])


@torch.no_grad()
def whole(model):
    """The same from the model's own forward."""
    states = []
    handle = decoder_blocks(model)[1][-1].register_forward_hook(lambda _module, _args, left: states.append(left))
    for tokens in BATCHES:
        model(input_ids=tokens.long(), use_cache=False)
    handle.remove()
    return torch.cat(states)


@pytest.mark.parametrize("state_bytes", [0, 2**30])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", [*DENSE, *MIXTURE])
def test_states_are_those_of_the_models_own_forward(family, attention, state_bytes):
    if (family, attention) == ("gemma2", "sdpa"):
        attention = None  # Gemma-2 has no sdpa
    model = tiny_model(family, attention)
    assert torch.equal(finish(begin(model, state_bytes)), whole(model))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_half_precision_gives_the_same_bits_too(family):
    model = tiny_model(family, dtype=torch.bfloat16)
    assert torch.equal(finish(begin(model)), whole(model))


def test_a_block_is_run_as_often_as_asked_and_goes_on_from_what_was_kept():
    forward = begin(tiny_model("llama"))
    advance(forward)
    with forward.resident():
        first, again = forward.run(1), forward.run(1)
    assert torch.equal(first, again)
    assert torch.equal(finish(forward), whole(tiny_model("llama")))


def test_weights_changed_in_a_block_count_for_what_it_leaves():
    model, pruned = tiny_model("llama"), tiny_model("llama")
    pruned.model.layers[0].mlp.up_proj.weight.data[:, ::2] = 0
    forward = begin(model)
    with forward.resident():
        model.model.layers[0].mlp.up_proj.weight.data[:, ::2] = 0
        for batch in range(len(BATCHES)):
            forward.keep(batch, forward.run(batch))
    forward.advance()
    assert torch.equal(finish(forward), whole(pruned))


def test_the_model_is_left_as_it_was():
    model = tiny_model("llama")
    before = whole(model)
    finish(begin(model))
    assert torch.equal(whole(model), before)
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("blocks", range(BLOCKS))
def test_a_later_run_goes_on_from_saved_states(tmp_path, blocks):
    first = begin(tiny_model("gemma3_text"))
    for _ in range(blocks):
        advance(first)
    first.save(tmp_path / "states")
    later = begin(tiny_model("gemma3_text"))
    later.restore(tmp_path / "states")
    assert later.block == blocks
    assert torch.equal(finish(later), whole(tiny_model("gemma3_text")))


def test_damaged_states_are_refused(tmp_path):
    forward = begin(tiny_model("llama"))
    advance(forward)
    forward.save(tmp_path / "states")
    (tmp_path / "states").write_bytes((tmp_path / "states").read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="truncated, damaged"):
        begin(tiny_model("llama")).restore(tmp_path / "states")


def test_a_real_fault_inside_the_forward_is_not_swallowed():
    model = tiny_model("llama")
    model.model.layers[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("a real fault")))
    forward = begin(model)
    advance(forward)
    with pytest.raises(ValueError, match="a real fault"):
        advance(forward)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    ("forward", "line"),
    [
        (lambda model: lambda **_: None, "decoder block 0 "),
        (lambda model: model.forward, "decoder block 0 returns tuple, expected hidden states"),
    ],
)
def test_a_model_of_another_make_is_refused(forward, line):
    model = tiny_model("llama")
    block = model.model.layers[0]
    plain = block.forward
    block.forward = lambda *args, **kwargs: (plain(*args, **kwargs),)
    model.forward = forward(model)
    with pytest.raises(ModelError, match=f"^LlamaForCausalLM: {line}"):
        begin(model).run(0)
