"""Metadata of GGUF files: typed values, and the refusal of what would change the model and is not supported."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunelib.errors import SourceError
from prunelib.sources.gguf.header import GGUFTensor, read_header

ARCHITECTURES = ("llama", "qwen2")
_READ = {  # keys of the architecture that the configuration is made of, which checks their values
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.factor",
    "rope.scaling.type",
    "vocab_size",
}
_HARMLESS = {"rope.scaling.finetuned", "rope.scaling.original_context_length"}  # the latter is for YaRN alone
_NEUTRAL = {  # keys of the architecture, and the value with which they change nothing
    "attention.causal": True,
    "attention.scale": 0,
    "attention.sliding_window": 0,
    "expert_count": 0,
    "expert_used_count": 0,
    "logit_scale": 1,
    "rope.scaling.attn_factor": 1,
}
_TOKENIZER_READ = {
    f"tokenizer.{key}"
    for key in (
        "chat_template", "ggml.bos_token_id", "ggml.eos_token_id", "ggml.merges", "ggml.padding_token_id", "ggml.pre",
        "ggml.token_type", "ggml.tokens", "ggml.unknown_token_id",
    )
}  # fmt: skip
_TOKENIZER_HARMLESS = ("tokenizer.chat_template", "tokenizer.huggingface.json")
_TOKENIZER_HARMLESS_ENDS = (
    "_token_id",
    ".scores",
    ".token_type_count",
)  # roles that nothing here uses; scores are SPM's
_ONLY = {  # supported values where the key is present
    "general.quantization_version": (2,),
    "general.type": ("model",),
    "tokenizer.ggml.add_bos_token": (False,),
    "tokenizer.ggml.add_eos_token": (False,),
    "tokenizer.ggml.add_sep_token": (False,),
    "tokenizer.ggml.add_space_prefix": (False,),
    "tokenizer.ggml.model": ("gpt2",),
    "tokenizer.ggml.remove_extra_whitespaces": (False,),
}


class Metadata:
    """The metadata of a GGUF file; a value that is missing or of another kind raises SourceError."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self._values = values

    @property
    def architecture(self) -> str:
        """The architecture, the prefix of its own keys."""
        return self.text("general.architecture")

    def own(self, key: str) -> str:
        """Return the full name of a key of the architecture."""
        return f"{self.architecture}.{key}"

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> list[str]:
        """Return all keys, sorted."""
        return sorted(self._values)

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """Return an integer of at least ``least``."""
        value = self._value(key, default)
        if not _is_integer(value) or value < least:
            raise self.refusal(key, f"an integer of at least {least}")
        return int(value)

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number above 0."""
        value = self._value(key, default)
        if not isinstance(value, float | int) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self.refusal(key, "a number above 0")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.refusal(key, "a string")
        return value

    def texts(self, key: str) -> list[str]:
        """Return an array of strings."""
        values: list[str] = self._value(key, None)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.refusal(key, "an array of strings")
        return values

    def integers(self, key: str) -> list[int]:
        """Return an array of integers."""
        values: list[int] = self._value(key, None)
        if not isinstance(values, list) or not all(map(_is_integer, values)):
            raise self.refusal(key, "an array of integers")
        return values

    def has(self, key: str, value: Any) -> bool:
        """Return whether a key is there with this value."""
        return key in self._values and bool(self._values[key] == value)

    def only(self, key: str, *supported: Any) -> None:
        """Check that a key has one of the supported values, if it is there."""
        if key in self._values and self._values[key] not in supported:
            raise self.refusal(key, " or ".join(map(str, supported)))

    def refusal(self, key: str, expected: str) -> SourceError:
        """Return the error for a key whose value is not what is expected."""
        name = key if key.isprintable() else repr(key)
        return SourceError(f"{self.name}: {name} = {_short(self._values.get(key))}, expected {expected}")

    def _value(self, key: str, default: Any) -> Any:
        value = self._values.get(key, default)
        if value is None:
            raise SourceError(f"{self.name}: no {key} in its metadata")
        return value


def read(path: Path) -> tuple[Metadata, dict[str, GGUFTensor]]:
    """Return the metadata and the tensors of a GGUF file that has nothing unsupported in its metadata.

    Raises
    ------
    SourceError
        If it is not such a file; the message names the key.
    """
    try:
        values, tensors = read_header(path)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path.name}: truncated, damaged or not a GGUF file that can be read ({error})") from None
    metadata = Metadata(path.name, values)
    _check_whole(metadata)
    metadata.only("general.architecture", *ARCHITECTURES)
    for key, supported in _ONLY.items():
        metadata.only(key, *supported)
    for key, neutral in _NEUTRAL.items():
        metadata.only(metadata.own(key), neutral)
    for key in metadata.keys():  # noqa: SIM118 - no mapping
        if not _is_known(key, metadata.architecture):
            raise metadata.refusal(key, "no such key: what it changes is not known here")
    return metadata, tensors


def _check_whole(metadata: Metadata) -> None:
    count = metadata.integer("split.count", default=1, least=0)
    if count > 1:
        part = metadata.integer("split.no", default=0, least=0) + 1
        raise SourceError(
            f"{metadata.name}: split.count = {count}: this is part {part} of {count}, expected the whole model in one "
            "file; llama-gguf-split --merge joins them"
        )


def _is_known(key: str, architecture: str) -> bool:
    """Return whether a key is read, checked, or without effect on what the model computes."""
    if key.startswith("tokenizer."):
        harmless = key.startswith(_TOKENIZER_HARMLESS) or key.endswith(_TOKENIZER_HARMLESS_ENDS)
        return harmless or key in _TOKENIZER_READ or key in _ONLY
    known = _READ | _HARMLESS | set(_NEUTRAL)
    return not key.startswith(f"{architecture}.") or key.removeprefix(f"{architecture}.") in known


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
