"""Token ids of a tokenizer against the rows of the model's embedding."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunelib.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROWS = "embedding_rows"  # attribute of a tokenizer


def embedding_rows(folder: Path) -> int | None:
    """Return the number of embedding rows by the config of a model folder; None without a readable one."""
    from transformers import AutoConfig  # noqa: PLC0415 - heavy, and not needed for checks

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # loading the model says what is wrong
        return None
    rows = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    return rows if isinstance(rows, int) else None


def limit_ids(tokenizer: "PreTrainedTokenizerBase", rows: int | None) -> None:
    """Let :func:`check_ids` refuse ids of this tokenizer from ``rows`` on; with None, none."""
    setattr(tokenizer, _ROWS, rows)


def may_exceed(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Return whether the tokenizer has tokens whose ids the embedding does not have."""
    rows = getattr(tokenizer, _ROWS, None)
    return rows is not None and max(tokenizer.get_vocab().values(), default=-1) >= rows


def check_ids(ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse token ids beyond the embedding.

    Raises
    ------
    ModelError
        If there is one; the message names the highest, its token and the rows of the embedding.
    """
    rows, highest = getattr(tokenizer, _ROWS, None), max(ids, default=-1)
    if rows is not None and highest >= rows:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise ModelError(
            f"{tokenizer.name_or_path}: the tokenizer gives {token!r} the id {highest}, but the model's embedding has "
            f"{rows} rows, expected ids below {rows}"
        )
