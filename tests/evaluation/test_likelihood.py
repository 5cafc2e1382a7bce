"""Scores of continuations against one float64 forward each, in many families."""

import random

import pytest
import torch
from families import DENSE, LENGTH, MIXTURE, SHARED, TUPLES, WORDS, tiny_model
from transformers import BloomConfig, BloomForCausalLM, PreTrainedModel

from prunelib.errors import ModelError, NumericalError
from prunelib.evaluation.likelihood import Pair, Scored, log_likelihoods, truncated_tokens


def random_pairs(count: int, longest: int = 12) -> list[Pair]:
    draw = random.Random(0)  # noqa: S311 - test data
    return [
        Pair(draw.choices(range(WORDS), k=draw.randint(1, longest)), draw.choices(range(WORDS), k=draw.randint(1, 4)))
        for _ in range(count)
    ]


def questions(count: int, longest: int) -> list[Pair]:
    """Answers of several tokens to questions, of one token, and none."""
    draw = random.Random(0)  # noqa: S311 - test data
    pairs = []
    for _ in range(count):
        context = draw.choices(range(WORDS), k=draw.randint(1, longest))
        answers = [draw.choices(range(WORDS), k=draw.randint(1, 5)) for _ in range(draw.randint(1, 4))]
        pairs += [Pair(context, answer) for answer in [*answers, [8], []]]
    return pairs


def oracle(model: PreTrainedModel, pair: Pair) -> float:
    """log p(continuation | context), one sequence alone, in float64."""
    tokens = torch.tensor([[*pair.context, *pair.continuation]])
    probabilities = model.double()(input_ids=tokens).logits[0].softmax(-1)
    positions = range(len(pair.context) - 1, tokens.shape[1] - 1)
    return sum(probabilities[at, tokens[0, at + 1]].log().item() for at in positions)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("family", DENSE)
def test_scores_are_their_definition(family: str, batch: int) -> None:
    pairs = random_pairs(8)
    scores = log_likelihoods(tiny_model(family), pairs, batch)
    double = tiny_model(family)
    assert [score.log_likelihood for score in scores] == pytest.approx(
        [oracle(double, pair) for pair in pairs], rel=1e-4
    )


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("family", sorted({*DENSE, *MIXTURE, *SHARED, *TUPLES} - {"xlnet"}))  # xlnet is not causal
def test_scores_are_those_of_each_answer_alone(family: str, batch: int) -> None:
    pairs = questions(4, longest=20)
    scores = log_likelihoods(tiny_model(family), pairs, batch)
    double = tiny_model(family)
    expected = [oracle(double, pair) if pair.continuation else 0.0 for pair in pairs]
    assert [score.log_likelihood for score in scores] == pytest.approx(expected, rel=1e-4)


def test_the_batch_changes_nothing() -> None:
    pairs, model = random_pairs(20), tiny_model("llama")
    alone = log_likelihoods(model, pairs, 1)
    for batch in (2, 7, 20, 50):
        together = log_likelihoods(model, pairs, batch)
        assert [score.log_likelihood for score in together] == pytest.approx([score.log_likelihood for score in alone])


def test_answers_of_one_token_share_a_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = tiny_model("llama"), []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **inputs: (rows.extend(inputs["input_ids"].tolist()), forward(**inputs))[1]
    )
    scores = log_likelihoods(model, [Pair([5, 6], [token]) for token in range(WORDS)], 4)
    assert rows == [[5, 6]]
    assert torch.tensor([score.log_likelihood for score in scores]).exp().sum().item() == pytest.approx(1, rel=1e-5)


def test_a_shared_beginning_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, shapes = tiny_model("llama"), []
    forward = model.forward

    def seen(**inputs: torch.Tensor) -> object:
        shapes.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", seen)
    log_likelihoods(model, [Pair(range(20), [20 + answer, 7, 8]) for answer in range(4)], 4)
    assert shapes[-1] == (1, 20 + 4 * 2)


def test_greedy_is_what_the_model_would_write() -> None:
    model, context = tiny_model("llama"), [3, 1, 4]
    written = model.generate(
        torch.tensor([context]), max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    answer = written[0, len(context) :].tolist()
    other = [*answer[:-1], (answer[-1] + 1) % WORDS]
    assert [score.greedy for score in log_likelihoods(model, [Pair(context, answer), Pair(context, other)], 2)] == [
        True,
        False,
    ]


def test_too_long_a_context_loses_its_start() -> None:
    model = tiny_model("llama")
    kept = [number % WORDS for number in range(LENGTH - 1)]
    short, long = Pair(kept, [8, 9]), Pair([7] * 30 + kept, [8, 9])
    first, second = log_likelihoods(model, [short, long], 1)
    assert first == second


@pytest.mark.parametrize(
    ("context", "answer", "cut"), [(1, LENGTH, 0), (LENGTH, 1, 0), (LENGTH, 2, 1), (LENGTH + 30, 3, 32)]
)
def test_what_a_model_cannot_take_is_counted(context: int, answer: int, cut: int) -> None:
    assert truncated_tokens(tiny_model("llama"), Pair([1] * context, [2] * answer)) == cut


def test_an_answer_longer_than_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match=rf"^model: an answer has {LENGTH + 1} tokens, but inputs may have {LENGTH}"):
        log_likelihoods(tiny_model("llama"), [Pair([1], [2] * (LENGTH + 1))], 1)


def test_a_model_without_a_longest_input_takes_any() -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=WORDS, hidden_size=32, n_layer=1, n_head=2))
    (score,) = log_likelihoods(model, [Pair([1], [2] * (LENGTH + 1))], 1)
    assert score.log_likelihood < 0
    assert truncated_tokens(model, Pair([1] * 1000, [2])) == 0


def test_a_broken_score_is_refused() -> None:
    model = tiny_model("llama")
    model.lm_head.weight.data[0, 0] = torch.nan
    with pytest.raises(NumericalError, match=r"^zero-shot: a log-likelihood is nan"):
        log_likelihoods(model, [Pair([1], [2])], 1)


def test_nothing_to_score() -> None:
    assert log_likelihoods(tiny_model("llama"), [], 4) == []


def test_an_empty_answer_is_certain() -> None:
    for context in ([1, 2], [1]):
        assert log_likelihoods(tiny_model("llama"), [Pair(context, [])], 1) == [Scored(0.0, greedy=True)]
