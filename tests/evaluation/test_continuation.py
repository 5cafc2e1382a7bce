"""Greedy continuation against the likeliest token of a whole forward pass, one after another."""

import pytest
import torch
from families import ALL, LENGTH, tiny_model
from pipeline_project import character_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig

from prunelib.errors import ParamsError
from prunelib.evaluation.continuation import check_prompts, continuation
from prunelib.evaluation.samples import SamplesSettings
from prunelib.model.prompts import prompt_ids

PROMPT, TOKENS, EOS = "the cat", 12, 2


@torch.inference_mode()
def brute_force(model, prompt, tokens, ends=(EOS,)):
    """Without a cache; the first of equally likely tokens, as argmin of the negative finds it."""
    ids = list(prompt)
    while len(ids) < len(prompt) + tokens and not (len(ids) > len(prompt) and ids[-1] in ends):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].tolist()
        ids.append(max(range(len(logits)), key=lambda token: (logits[token], -token)))
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer()


def expected(model, tokenizer, tokens=TOKENS, **ends):
    return tokenizer.decode(brute_force(model, prompt_ids(tokenizer, PROMPT), tokens, **ends), skip_special_tokens=True)


@pytest.mark.parametrize("family", ALL)
def test_every_family_continues_by_its_likeliest_token(family, tokenizer):
    model = tiny_model(family)
    assert continuation(model, tokenizer, PROMPT, TOKENS) == expected(model, tokenizer)


def test_the_token_that_ends_a_text_ends_it(tokenizer):
    model, ids = tiny_model("llama"), prompt_ids(tokenizer, PROMPT)
    whole = brute_force(model, ids, TOKENS)
    model.generation_config.eos_token_id = [whole[3], EOS]
    found = continuation(model, tokenizer, PROMPT, TOKENS)
    assert found == expected(model, tokenizer, ends=(whole[3],))
    assert len(prompt_ids(tokenizer, found)) < TOKENS


def test_the_first_of_equally_likely_tokens_follows(tokenizer):
    model = tiny_model("llama")
    model.lm_head.weight.zero_()
    assert continuation(model, tokenizer, PROMPT, 3) == tokenizer.decode([0, 0, 0], skip_special_tokens=True)


def test_the_models_own_generation_settings_change_nothing_and_stay(tokenizer):
    model = tiny_model("llama")
    before = continuation(model, tokenizer, PROMPT, TOKENS)
    own = GenerationConfig(repetition_penalty=9.0, do_sample=True, temperature=5.0, eos_token_id=EOS)
    model.generation_config = own
    assert continuation(model, tokenizer, PROMPT, TOKENS) == before
    assert model.generation_config is own


def test_a_family_whose_cache_fails_goes_without(tokenizer, monkeypatch):
    model = tiny_model("llama")
    generate, caches = model.generate, []

    def fails_with_a_cache(ids, *, generation_config, **given):
        caches.append(generation_config.use_cache)
        if generation_config.use_cache is not False:
            raise ValueError
        return generate(ids, generation_config=generation_config, **given)

    monkeypatch.setattr(model, "generate", fails_with_a_cache)
    assert continuation(model, tokenizer, PROMPT, TOKENS) == expected(model, tokenizer)
    assert caches == [None, False]


def test_an_eos_after_the_prompt_is_left_out(tokenizer):
    ending = character_tokenizer()
    ending.add_special_tokens({"bos_token": "a", "eos_token": "z"})
    ending.backend_tokenizer.post_processor = TemplateProcessing(
        single="a $A z", special_tokens=[("a", ending.bos_token_id), ("z", ending.eos_token_id)]
    )
    assert prompt_ids(ending, PROMPT) == [ending.bos_token_id, *prompt_ids(tokenizer, PROMPT)]


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer):
    model = tiny_model("llama")
    check_prompts(model, tokenizer, SamplesSettings(prompts=("a", "b" * 9), tokens=LENGTH - 9))
    with pytest.raises(ParamsError, match=rf"^evaluation\.samples: prompt 2 .* = {LENGTH + 1} tokens, .* {LENGTH}$"):
        check_prompts(model, tokenizer, SamplesSettings(prompts=("a", "b" * 10), tokens=LENGTH - 9))


@pytest.mark.parametrize("prompts", [["twice", "twice"], [" \n"], [""]])
def test_prompts_are_distinct_and_not_blank(prompts):
    with pytest.raises(ValueError, match=r"prompts"):
        SamplesSettings(prompts=prompts)
