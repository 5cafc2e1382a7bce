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
    return tokens[: len(tokens) - len(special_tokens(tokenizer)[1])]


@lru_cache(maxsize=1)  # of one tokenizer, for all texts
def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before a text, and those after it.

    Raises
    ------
    ModelError
        If special tokens cannot be told from those of a text.
    """
    plain, whole = (tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
    for end in range(len(whole), len(plain) - 1, -1):
        if whole[end - len(plain) : end] == plain:
            return whole[: end - len(plain)], whole[end:]
    raise ModelError(
        f"model: its tokenizer encodes 'a' as {plain}, but as {whole} with special tokens, expected the former within "
        "the latter"
    )
