"""Log-likelihoods of continuations, which decide every multiple-choice task."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from prunelib.errors import ModelError, NumericalError
from prunelib.evaluation.batching import depends_on_batch
from prunelib.evaluation.shared_prefixes import Group, Tokens, batches, grouped, model_inputs, runs_as_alone

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Pair(NamedTuple):
    """Token ids of a context (at least one) and of its continuation."""

    context: Sequence[int]
    continuation: Sequence[int]


class Scored(NamedTuple):
    """log p(continuation | context), and whether greedy decoding yields that continuation."""

    log_likelihood: float
    greedy: bool


@torch.inference_mode()
def log_likelihoods(model: "PreTrainedModel", pairs: Sequence[Pair], batch: int) -> list[Scored]:
    """Score each continuation: log-probabilities in float32, summed over its tokens in float64.

    Inputs that begin alike, as those of one question's answers, run as one sequence if the model allows it
    (:mod:`prunelib.evaluation.shared_prefixes`), and equal inputs (answers of one token) run once. Those of similar
    length share a batch, padded on the right, which does not affect a causal model. Logits are computed only from the
    first answer token of a batch on. Where a model's output for the shortest input changes when batched with the
    longest, each input is run alone. Inputs too long are truncated on the left (:func:`truncated_tokens`).

    Parameters
    ----------
    model
        Put into evaluation mode (no dropout).
    pairs
        Contexts and continuations to score.
    batch
        Inputs per forward pass.

    Returns
    -------
    list of Scored
        In the order of ``pairs``.

    Raises
    ------
    ModelError
        If a continuation alone exceeds the model's maximum input length.
    NumericalError
        If a log-likelihood is NaN or infinite.
    """
    model.eval()
    members: defaultdict[Tokens, list[int]] = defaultdict(list)  # input: numbers of the pairs scored on it
    for number, pair in enumerate(pairs):
        members[_input(model, pair)].append(number)
    inputs = sorted(members, key=len)
    if batch > 1 and _depends_on_batch(model, inputs):
        batch = 1
    scores: dict[int, Scored] = {}
    for chunk in batches(_groups(model, inputs, batch), batch):
        answers = [
            (row, number, group.places(at)[len(ids) - len(pairs[number].continuation) :])
            for row, group in enumerate(chunk)
            for at, ids in enumerate(group.inputs)
            for number in members[ids]
        ]
        first = min((places[0] for _, _, places in answers if places), default=0)
        logits = _logits(model, chunk, first)
        for row, number, places in answers:
            scores[number] = _score(logits[row, [place - first for place in places]], pairs[number].continuation)
    return [scores[number] for number in range(len(pairs))]


def _groups(model: "PreTrainedModel", inputs: Sequence[Tokens], most: int) -> list[Group]:
    """Return groups of at most ``most`` inputs, each of one input where the model gives others other results."""
    groups = grouped(inputs, most)
    several = [group for group in groups if len(group.inputs) > 1]
    longest = max(several, key=lambda group: max(map(len, group.inputs)), default=None)
    return groups if longest is None or runs_as_alone(model, longest) else [Group.of_one(ids) for ids in inputs]


def _depends_on_batch(model: "PreTrainedModel", inputs: Sequence[Tokens]) -> bool:
    """Return whether batching with the longest input changes the shortest of several tokens; ``inputs``: by length."""
    shortest = next((ids for ids in inputs if len(ids) > 1), ())  # attention to a single token changes nothing
    return 0 < len(shortest) < len(inputs[-1]) and depends_on_batch(model, shortest, inputs[-1])


def truncated_tokens(model: "PreTrainedModel", pair: Pair) -> int:
    """Return how many tokens at the beginning of a context the model cannot take; 0: it takes all.

    Raises
    ------
    ModelError
        If the continuation alone exceeds the model's maximum input length.
    """
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is None:
        return 0
    if len(pair.continuation) > longest:
        raise ModelError(f"model: an answer has {len(pair.continuation)} tokens, but inputs may have {longest} at most")
    return max(0, len(pair.context) + len(pair.continuation) - 1 - int(longest))


def _input(model: "PreTrainedModel", pair: Pair) -> Tokens:
    """Return the model input: all tokens but the last, which is only predicted; at least one token."""
    tokens = (*pair.context, *pair.continuation)[truncated_tokens(model, pair) :]
    return tokens[:-1] or tokens


def _logits(model: "PreTrainedModel", groups: Sequence[Group], first: int) -> torch.Tensor:
    """Return logits (groups, places, vocabulary) from place ``first`` on."""
    inputs = model_inputs(model, groups)
    keep = inputs["input_ids"].shape[1] - first
    logits: torch.Tensor = model(**inputs, use_cache=False, logits_to_keep=keep).logits
    return logits[:, -keep:]  # a few families compute all


def _score(logits: torch.Tensor, continuation: Sequence[int]) -> Scored:
    """Score the tokens of a continuation, each by its row of logits (tokens, vocabulary)."""
    target = torch.tensor(continuation, device=logits.device)
    log_probabilities = logits.float().log_softmax(dim=-1)
    log_likelihood = log_probabilities.gather(-1, target[:, None]).double().sum().item()
    if not math.isfinite(log_likelihood):
        raise NumericalError(f"zero-shot: a log-likelihood is {log_likelihood}, expected a number; check the weights")
    return Scored(log_likelihood, bool((logits.argmax(dim=-1) == target).all()))
