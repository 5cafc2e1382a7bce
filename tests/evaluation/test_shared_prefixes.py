"""Inputs that run as one sequence: how they are gathered, and which models allow it."""

import pytest
import torch
from families import DENSE, MIXTURE, tiny_model
from hypothesis import given
from hypothesis import strategies as st

from prunelib.evaluation.shared_prefixes import Group, batches, grouped, model_inputs, runs_as_alone

INPUTS = st.sets(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), max_size=30)
QUESTION = Group(((5, 9, 11, 3, 7), (5, 9, 11, 4), (5, 9, 11)), 3)


@given(INPUTS, st.integers(1, 9))
def test_groups_hold_every_input_once(inputs, most):
    groups = grouped(inputs, most)
    assert sorted(ids for group in groups for ids in group.inputs) == sorted(inputs)
    for group in groups:
        assert len(group.inputs) <= most
        assert len({ids[: group.shared] for ids in group.inputs}) == 1
        for number, ids in enumerate(group.inputs):
            places = group.places(number)
            assert tuple(group.tokens[place] for place in places) == ids
            assert [group.positions[place] for place in places] == list(range(len(ids)))
    assert sum(len(group.tokens) for group in groups) <= sum(map(len, inputs))


@given(INPUTS, st.integers(1, 9))
def test_batches_hold_every_group_once(inputs, most):
    groups = grouped(inputs, most)
    batched = list(batches(groups, most))
    assert sorted(group for batch in batched for group in batch) == sorted(groups)
    assert all(0 < sum(len(group.inputs) for group in batch) <= most for batch in batched)


def test_answers_to_one_question_are_a_group_and_other_questions_are_not():
    first, second = (1, 20, 21, 22, 23, 24), (1, 30, 31, 32)
    inputs = [(*first, 5, 6), (*second, 7, 7), (*first, 8), (*second, 9)]
    assert [group.inputs for group in grouped(inputs, 8)] == [(inputs[0], inputs[2]), (inputs[1], inputs[3])]


def test_a_token_attends_to_the_shared_ones_and_to_its_own_before_it():
    model = tiny_model("llama")
    inputs = model_inputs(model, [QUESTION, Group.of_one((1, 2))])
    assert inputs["input_ids"].tolist() == [[5, 9, 11, 3, 7, 4], [1, 2, 0, 0, 0, 0]]
    assert inputs["position_ids"][0].tolist() == [0, 1, 2, 3, 4, 3]
    attends = inputs["attention_mask"][:, 0] == 0
    assert attends[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]
    assert attends[1, :2].int().tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", sorted({*DENSE, *MIXTURE} - {"gemma2", "gemma3_text"}))
def test_these_families_run_groups_as_alone(family: str, dtype: torch.dtype) -> None:
    assert runs_as_alone(tiny_model(family, dtype=dtype).eval(), QUESTION)


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_a_window_of_attention_shorter_than_the_inputs_is_found(family: str) -> None:
    model, words = tiny_model(family).eval(), tuple(range(3, 12))  # the window has 8 tokens
    assert runs_as_alone(model, QUESTION)
    assert not runs_as_alone(model, Group(((*words, 4), (*words, 5)), len(words)))


@pytest.mark.parametrize("family", ["bloom", "mpt", "rwkv"])
def test_a_model_that_takes_no_positions_is_found(family: str) -> None:
    assert not runs_as_alone(tiny_model(family).eval(), QUESTION)
