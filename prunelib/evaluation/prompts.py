"""Token ids of a prompt: what a tokenizer puts before a text belongs to it, what it puts after ends it."""

from functools import lru_cache
from typing import TYPE_CHECKING

from prunelib.errors import ModelError
from prunelib.model.vocabulary import check_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return token ids, with the special tokens that the tokenizer puts before a text, never those after it.

    Raises
    ------
    ModelError
        If a token's id is beyond the model's embedding, or special tokens cannot be told from those of the text.
    """
    tokens: list[int] = tokenizer.encode(text)
    check_ids(tokens, tokenizer)
    return tokens[: len(tokens) - appended_tokens(tokenizer)]


@lru_cache(maxsize=1)  # of one tokenizer, for all texts
def appended_tokens(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the number of special tokens that the tokenizer puts after a text.

    Raises
    ------
    ModelError
        If special tokens cannot be told from those of a text.
    """
    plain, whole = (tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
    for end in range(len(whole), len(plain) - 1, -1):
        if whole[end - len(plain) : end] == plain:
            return len(whole) - end
    raise ModelError(
        f"model: its tokenizer encodes 'a' as {plain}, but as {whole} with special tokens, expected the former within "
        "the latter"
    )
