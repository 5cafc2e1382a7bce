"""Windows through a model block by block, against the model's own forward."""

import weakref

import pytest
import torch
from families import DENSE, MIXTURE, SHARED, TUPLES, random_windows, tiny_model

from prunelib.errors import ArtifactError, ModelError
from prunelib.model.blockwise import BlockwiseForward, Stop
from prunelib.model.structure import decoder_blocks

CPU = torch.device("cpu")
WINDOWS = random_windows(samples=5, length=16)
BATCHES = WINDOWS.split(2)


def begin(model, state_bytes=2**30, batches=BATCHES):
    return BlockwiseForward(model, decoder_blocks(model)[0], batches, CPU, state_bytes)


def advance(forward):
    with forward.resident():
        for batch in range(len(forward.batches)):
            forward.run(batch)
            forward.keep(batch)
    forward.advance()


def finish(forward):
    """The states that the last block leaves of all windows."""
    while forward.block < len(decoder_blocks(forward.model)[1]) - 1:
        advance(forward)
    with forward.resident():
        return torch.cat([forward.run(batch) for batch in range(len(forward.batches))])


def first(left):
    """The hidden states, which come first in all families."""
    return left if isinstance(left, torch.Tensor) else left[0]


@torch.no_grad()
def whole(model, batches=BATCHES):
    """The same from the model's own forward."""
    states = []
    handle = decoder_blocks(model)[1][-1].register_forward_hook(lambda _module, _args, left: states.append(first(left)))
    for tokens in batches:
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
            forward.run(batch)
            forward.keep(batch)
    forward.advance()
    assert torch.equal(finish(forward), whole(pruned))


def test_a_block_is_as_it_was_while_it_is_to_be_unchanged():
    model = tiny_model("llama")
    forward, projection = begin(model), model.model.layers[0].mlp.up_proj
    before = projection.weight.data.clone()
    with forward.resident():
        dense = forward.run(0)
        projection.weight.data.zero_()
        with forward.unchanged():
            assert torch.equal(projection.weight, before)
            assert torch.equal(forward.run(0), dense)
        assert not projection.weight.any()
        assert not torch.equal(forward.run(0), dense)
    assert torch.equal(projection.weight, before)
    assert not forward._found


def test_a_hook_may_end_a_run():
    model, reached = tiny_model("llama"), []

    def stop(*_):
        reached.append("up")
        raise Stop

    forward, mlp = begin(model), model.model.layers[0].mlp
    handles = [mlp.up_proj.register_forward_pre_hook(stop), mlp.down_proj.register_forward_pre_hook(reached.append)]
    with forward.resident():
        forward.feed(0)
        for handle in handles:
            handle.remove()
        forward.run(0)
        forward.feed(0)
    assert reached == ["up"]
    with pytest.raises(RuntimeError, match="not the latest"):
        forward.keep(0)
    assert torch.equal(finish(forward), whole(tiny_model("llama")))


def test_the_model_is_left_as_it_was():
    model = tiny_model("llama")
    before = whole(model)
    finish(begin(model))
    assert torch.equal(whole(model), before)
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("state_bytes", [0, 2**30])
@pytest.mark.parametrize("family", [*TUPLES, *SHARED])
def test_blocks_that_leave_more_than_hidden_states(family, state_bytes):
    model, batches = tiny_model(family), WINDOWS[:4].split(2)  # of one size: XLNet's are (length, batch, hidden)
    assert torch.equal(finish(begin(model, state_bytes, batches)), whole(model, batches))


@pytest.mark.parametrize("blocks", range(4))
@pytest.mark.parametrize("family", ["gemma3_text", "falcon", "gemma4_text", "chain"])
def test_a_later_run_goes_on_from_saved_states(family, tmp_path, blocks):
    model = chained(tiny_model("llama")) if family == "chain" else tiny_model(family)
    if blocks >= len(decoder_blocks(model)[1]):
        return
    earlier, later = begin(model), begin(model)
    for _ in range(blocks):
        advance(earlier)
    earlier.save(tmp_path / "states")
    later.restore(tmp_path / "states")
    assert later.block == blocks
    assert torch.equal(finish(later), whole(model))


class Chain(torch.nn.Module):
    """Returns hidden states, a large tensor that nobody takes, and a sum that the next block adds."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, states, total, sums):
        states = self.block(states + (0 if total is None else total))
        sums["last", 0] = sums.get(("last", 0), 0) + states
        return [states, (torch.zeros(1000), {"note": None}), (states.sum() + len(sums), "text")]


def chained(model):
    """A model whose blocks hand on a sum by their return value, and another in a mapping."""
    layers = torch.nn.ModuleList(map(Chain, [torch.nn.Linear(32, 32) for _ in range(2)]))

    def forward(input_ids, use_cache):
        states, total, sums = model.model.embed_tokens(input_ids), None, {"other": 1}
        for block in layers:
            states, _, (total, _) = block(states, total, sums=sums)
        return states + sums["last", 0]

    model.model.layers, model.forward = layers, forward
    return model.requires_grad_(False)


def test_what_the_next_block_takes_is_handed_on_and_nothing_else(tmp_path):
    model = chained(tiny_model("llama"))
    forward = begin(model)
    advance(forward)
    forward.save(tmp_path / "states")
    states = 5 * 16 * 32
    assert 2 * states < (tmp_path / "states").stat().st_size / 4 < 2 * states + 1000
    assert torch.equal(finish(forward), whole(model))


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
        (lambda model: lambda **_: None, "decoder block 0 .*called"),
        (lambda model: model.forward, "decoder block 0 .*tuple"),
    ],
)
def test_a_model_of_another_make_is_refused(forward, line):
    model = tiny_model("llama")
    block = model.model.layers[0]
    plain = block.forward
    block.forward = lambda *args, **kwargs: (plain(*args, **kwargs)[..., :9],)
    model.forward = forward(model)
    with pytest.raises(ModelError, match=f"^LlamaForCausalLM: {line}"):
        begin(model).run(0)


def test_what_is_not_kept_takes_no_memory():
    forward = begin(tiny_model("llama"))
    with forward.resident():
        left = [weakref.ref(forward.run(batch)) for batch in range(len(BATCHES))]
        assert [each() is not None for each in left] == [False] * (len(left) - 1) + [True]
        with pytest.raises(RuntimeError, match="batch 0"):
            forward.keep(0)
