"""A model that shares state between its blocks in ways that nothing hands on."""

import pytest
import torch
from families import DENSE, MIXTURE, SHARED, TUPLES, tiny_model

from prunelib.errors import ModelError, NumericalError
from prunelib.model.agreement import check_blockwise
from prunelib.model.structure import decoder_blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", [*DENSE, *MIXTURE, *TUPLES, *SHARED])
def test_families_agree_and_are_left_as_they_were(family, dtype):
    model = tiny_model(family, dtype=dtype)
    check_blockwise(model, decoder_blocks(model)[0])
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())


def remember(model, fallback):
    """Let the last block add what the first one left on a module that is no argument of either."""
    first, last = (block.mlp for block in model.model.layers)
    plain_first, plain_last, shared = first.forward, last.forward, {}

    def leave(states):
        shared["states"] = plain_first(states)
        return shared["states"]

    first.forward, last.forward = leave, lambda states: plain_last(states) + fallback(shared)


@pytest.mark.parametrize(
    ("fallback", "facts"),
    [
        (lambda shared: shared.pop("states", 0), r"differ by \d+"),
        (lambda shared: shared.pop("states"), r"\.1 .*KeyError\('states'\)"),
    ],
)
def test_state_that_is_not_handed_on_is_refused(fallback, facts):
    model = tiny_model("llama")
    remember(model, fallback)
    with pytest.raises(ModelError, match=rf"^LlamaForCausalLM: model\.layers.*{facts}") as caught:
        check_blockwise(model, "model.layers")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_gives_nan_is_not_taken_for_one_that_shares_state(value):
    model = tiny_model("llama", dtype=torch.float16)
    model.model.layers[0].input_layernorm.weight.data[0] = value
    with pytest.raises(NumericalError, match=r"^LlamaForCausalLM: model\.layers: .*NaN or infinite in float16"):
        check_blockwise(model, "model.layers")


def test_a_forward_of_a_block_s_own_stays():
    model, calls = tiny_model("llama"), []
    for block in model.model.layers:
        own = block.forward
        block.forward = lambda *args, own=own, **kwargs: calls.append(own) or own(*args, **kwargs)
    before = [block.forward for block in model.model.layers]
    check_blockwise(model, "model.layers")
    assert [block.forward for block in model.model.layers] == before
    calls.clear()
    model(torch.arange(4)[None])
    assert len(calls) == len(before)
