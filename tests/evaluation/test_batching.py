"""Models whose output for an input depends on its batch, and models whose does not."""

import random

import pytest
import torch
from families import DENSE, MIXTURE, WORDS, random_windows, tiny_model
from torch import nn
from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedModel

from prunelib.evaluation.batching import depends_on_batch
from prunelib.evaluation.likelihood import Pair, log_likelihoods
from prunelib.evaluation.perplexity import perplexity

LIMIT = 8
SHORT, LONG = [5, 9, 11], list(range(3, 24))


@pytest.fixture
def longrope() -> PreTrainedModel:
    """A Phi-3 whose rotary factors change for a whole batch as soon as one input has more than LIMIT tokens."""
    factors = {"long_factor": [2.0] * 4, "short_factor": [1.0] * 4, "factor": 8.0}
    config = Phi3Config(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        original_max_position_embeddings=LIMIT,
        pad_token_id=0,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": LIMIT,
            **factors,
        },
    )
    torch.manual_seed(0)
    model = Phi3ForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2).add_(float(parameter.ndim == 1) / 2)
    return model


class CentredOverBatch(nn.Module):
    """A norm that subtracts the mean over the batch: no input of it stands alone, not even among others as long."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.norm(states - states.mean(dim=0, keepdim=True) / 2)


def centred() -> PreTrainedModel:
    model = tiny_model("llama")
    model.model.norm = CentredOverBatch(model.model.norm)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", [*DENSE, *MIXTURE])
def test_what_rounding_changes_is_no_dependence(family: str, dtype: torch.dtype) -> None:
    assert not depends_on_batch(tiny_model(family, dtype=dtype).eval(), SHORT, LONG)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotary_factors_of_the_batch_are_found_on_both_sides_of_their_limit(
    longrope: PreTrainedModel, dtype: torch.dtype
) -> None:
    longrope.to(dtype)
    assert depends_on_batch(longrope, SHORT, LONG)
    assert not depends_on_batch(longrope, SHORT, LONG[:LIMIT])
    assert not depends_on_batch(longrope, [*LONG, 3], LONG)


def test_each_input_scores_as_it_does_alone(longrope: PreTrainedModel) -> None:
    draw = random.Random(0)  # noqa: S311 - test data
    pairs = [Pair(draw.choices(range(WORDS), k=length), [7, 3]) for length in (1, 3, 4, 6, 9, 12, 20)]
    alone = [log_likelihoods(longrope, [pair], 1)[0].log_likelihood for pair in pairs]
    for batch in (1, 2, 7):
        scores = log_likelihoods(longrope, pairs, batch)
        assert [score.log_likelihood for score in scores] == pytest.approx(alone, rel=1e-5)


def test_windows_that_depend_on_each_other_run_alone() -> None:
    windows = random_windows(5, 12)
    alone = perplexity(centred(), windows, 1)
    assert perplexity(centred(), windows, 3) == perplexity(centred(), windows, 100) == alone


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model("llama")
    depends_on_batch(model, SHORT, LONG)
    assert not model.lm_head._forward_pre_hooks
    assert model(input_ids=torch.tensor([SHORT])).logits.shape == (1, len(SHORT), WORDS)
