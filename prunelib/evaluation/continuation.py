"""Greedy continuation of prompts, by transformers' own generation and its cache of keys and values."""

import contextlib
from collections.abc import Iterator

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from prunelib.evaluation.samples import SamplesSettings
from prunelib.model.prompts import prompt_ids
from prunelib.model.structure import check_length, quiet_transformers


def check_prompts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: SamplesSettings) -> None:
    """Check that the model accepts every prompt with what may follow it.

    Raises
    ------
    ParamsError
        If one exceeds the model's positions.
    ModelError
        As :func:`prunelib.model.prompts.prompt_ids`.
    """
    for number, prompt in enumerate(settings.prompts, start=1):
        length = len(prompt_ids(tokenizer, prompt)) + settings.tokens
        check_length(model, length, key=f"evaluation.samples: prompt {number} and what follows")


@torch.inference_mode()
def continuation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int) -> str:
    """Continue a prompt by the likeliest token, again and again; of equally likely ones, by the first.

    The prompt is a batch of its own, so that nothing else decides its continuation.

    Parameters
    ----------
    model, tokenizer
        The model is put into evaluation mode (no dropout).
    prompt
        Text that is not blank.
    tokens
        Maximum number of tokens; a token that ends a text ends the continuation.

    Returns
    -------
    str
        The text of the continuation alone, without special tokens.

    Raises
    ------
    ModelError
        As :func:`prunelib.model.prompts.prompt_ids`.
    """
    model.eval()
    ids = torch.tensor([prompt_ids(tokenizer, prompt)], device=model.device)  # (1, prompt)
    with _own_settings_aside(model) as own, quiet_transformers():
        ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
        greedy = {"do_sample": False, "max_new_tokens": tokens, "eos_token_id": ends, "pad_token_id": 0}
        try:
            whole = _generated(model, ids, GenerationConfig(**greedy))
        except Exception:  # in a few families, such as xLSTM, the cache does not fit the layers
            whole = _generated(model, ids, GenerationConfig(**greedy, use_cache=False))
    return str(tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True))


@contextlib.contextmanager
def _own_settings_aside(model: PreTrainedModel) -> Iterator[GenerationConfig]:
    """Yield a model's own settings of generation, which it is without meanwhile.

    Generation takes from them what it is not given, and a penalty would change which token is the likeliest.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield own
    finally:
        model.generation_config = own


def _generated(model: PreTrainedModel, ids: torch.Tensor, settings: GenerationConfig) -> torch.Tensor:
    """Return a prompt (1, prompt) with its continuation (1, prompt + continuation)."""
    whole: torch.Tensor = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    return whole
