"""Perplexity against a plain float64 loop in ten families, and what it refuses."""

import pytest
import torch
from families import DENSE, WORDS, random_windows, tiny_model
from pydantic import ValidationError
from transformers import PreTrainedModel

from prunelib.errors import NumericalError
from prunelib.evaluation.perplexity import PerplexitySettings, perplexity
from prunelib.records import PerplexityResult

WINDOWS = random_windows(5, 12)


def oracle(model: PreTrainedModel, windows: torch.Tensor) -> float:
    """The definition, token by token in float64."""
    losses = []
    for window in windows.long():
        logits = model.double()(input_ids=window[None]).logits[0]
        for position in range(len(window) - 1):
            probabilities = logits[position].exp() / logits[position].exp().sum()
            losses.append(-probabilities[window[position + 1]].log())
    return torch.stack(losses).mean().exp().item()


def uniform_model() -> PreTrainedModel:
    model = tiny_model("llama")
    model.lm_head.weight.data.zero_()
    return model


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("family", DENSE)
def test_perplexity_is_its_definition(family: str, batch: int) -> None:
    result = perplexity(tiny_model(family), WINDOWS, batch)
    assert result.value == pytest.approx(oracle(tiny_model(family), WINDOWS), rel=1e-4)
    assert (result.tokens, result.windows) == (5 * 11, 5)


@pytest.mark.parametrize("batch", [2, 3, 5, 100])
def test_the_batch_changes_nothing(batch: int) -> None:
    model = tiny_model("gemma2")
    assert perplexity(model, WINDOWS, batch).value == pytest.approx(perplexity(model, WINDOWS, 1).value, rel=1e-6)


@pytest.mark.parametrize("length", [2, 12])
def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(length: int) -> None:
    assert perplexity(uniform_model(), random_windows(3, length), 2).value == pytest.approx(WORDS, rel=1e-6)


def test_each_window_stands_alone() -> None:
    model = tiny_model("llama")
    alone = [perplexity(model, window[None], 1).value for window in WINDOWS]
    mean = torch.tensor(alone, dtype=torch.float64).log().mean().exp().item()
    assert perplexity(model, WINDOWS, 3).value == pytest.approx(mean, rel=1e-6)


def test_dropout_is_off() -> None:
    model = tiny_model("gpt2")
    assert perplexity(model.train(), WINDOWS, 3) == perplexity(tiny_model("gpt2"), WINDOWS, 3)


def test_losses_are_taken_in_float32_whatever_the_models_dtype() -> None:
    half = tiny_model("llama", dtype=torch.bfloat16)
    logits = half(input_ids=WINDOWS.long()).logits[:, :-1].double()
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), WINDOWS[:, 1:].flatten().long())
    assert perplexity(half, WINDOWS, 5).value == pytest.approx(losses.exp().item(), rel=1e-5)


def test_a_broken_loss_names_its_window() -> None:
    model = tiny_model("llama")
    windows = torch.ones(5, 12, dtype=torch.int32)
    windows[3, 4] = 7
    model.model.embed_tokens.weight.data[7] = torch.nan
    with pytest.raises(NumericalError, match=r"^perplexity: the loss of window 3 is nan"):
        perplexity(model, windows, 2)


def test_a_loss_beyond_the_exponential_is_refused() -> None:
    model = tiny_model("llama")
    model.lm_head.weight.data *= 1e5
    with pytest.raises(NumericalError, match=r"^perplexity: the mean loss is .* too large"):
        perplexity(model, WINDOWS, 2)


def test_the_result_is_a_record() -> None:
    result = perplexity(uniform_model(), WINDOWS, 2)
    assert PerplexityResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 1}, "greater than or equal to 2"),
        ({"batch": 0}, "greater than or equal to 1"),
        ({"tokens": 511}, "tokens must be at least length: 511 < 512"),
        ({"stride": 1}, "unknown key 'stride'"),
    ],
)
def test_settings_are_checked(changes: dict[str, int], message: str) -> None:
    PerplexitySettings(length=512, tokens=512, batch=1)
    with pytest.raises(ValidationError, match=message):
        PerplexitySettings(**{"length": 512, "tokens": 512, "batch": 1, **changes})
