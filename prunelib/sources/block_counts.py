"""Numbers of blocks in a config.json, bounded before a model, or even its configuration, is built from them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prunelib.errors import ModelError

_KEYS = {
    "decoder_layers",
    "depth",
    "encoder_layers",
    "n_layer",
    "n_layers",
    "num_hidden_layers",
    "num_layers",
}
MOST_BLOCKS = 10_000
"""More than any model has (published ones have a few hundred), for a config.json without weight files."""


def check_block_counts(file: Path, name: str, tensors: int) -> None:
    """Refuse a configuration with more blocks than its weight files have tensors.

    Transformers builds lists of that length from a configuration alone, and a model's modules even on torch's meta
    device: neither would end at 10**9 blocks.

    Parameters
    ----------
    file
        A config.json; configurations nested in it (``text_config``) are checked, too. One that cannot be read is left
        to those who need it.
    name
        The file in messages.
    tensors
        The number of tensors in the files.

    Raises
    ------
    ModelError
        If there are more; the message gives the key and both numbers.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    for key, count in block_counts(config):
        if count > tensors:
            raise ModelError(f"{name}: {key} = {count}, but its weight files have {tensors} tensors, expected no more")


def block_counts(config: Any, within: str = "") -> Iterator[tuple[str, int]]:
    """Yield the numbers of blocks in the content of a config.json, by dotted key."""
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if key in _KEYS and isinstance(value, int):
            yield f"{within}{key}", value
        elif isinstance(value, Mapping):
            yield from block_counts(value, f"{within}{key}.")
