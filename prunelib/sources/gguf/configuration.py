"""``config.json`` of a GGUF file's model."""

from typing import Any

import numpy as np

from prunelib.sources.gguf.metadata import Metadata
from prunelib.sources.gguf.tokenizer import role_ids

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}


def configuration(metadata: Metadata, *, tied: bool) -> dict[str, Any]:
    """Return the configuration of the model.

    Raises
    ------
    SourceError
        If a value is missing, impossible, or not supported.
    """
    own = metadata.own
    tokens = metadata.texts("tokenizer.ggml.tokens")
    metadata.only(own("vocab_size"), len(tokens))
    return {
        "architectures": [_CLASSES[metadata.architecture]],
        "model_type": metadata.architecture,
        "dtype": "float32",
        "hidden_size": metadata.integer(own("embedding_length")),
        "intermediate_size": metadata.integer(own("feed_forward_length")),
        "num_hidden_layers": metadata.integer(own("block_count")),
        **_heads(metadata),
        "hidden_act": "silu",
        "max_position_embeddings": metadata.integer(own("context_length")),
        "rms_norm_eps": _shortest(metadata.number(own("attention.layer_norm_rms_epsilon"))),
        "rope_parameters": _rope(metadata),
        "vocab_size": len(tokens),
        "tie_word_embeddings": tied,
        **role_ids(metadata),
    }


def _heads(metadata: Metadata) -> dict[str, int]:
    """Return numbers and size of heads; sizes that transformers has no key for are refused."""
    own = metadata.own
    hidden, heads = metadata.integer(own("embedding_length")), metadata.integer(own("attention.head_count"))
    key_heads = metadata.integer(own("attention.head_count_kv"), default=heads)
    if heads % key_heads:
        raise metadata.refusal(own("attention.head_count_kv"), f"a divisor of the {heads} heads")
    if own("attention.key_length") not in metadata and hidden % heads:
        raise metadata.refusal(own("attention.head_count"), f"a divisor of {own('embedding_length')} = {hidden}")
    size = metadata.integer(own("attention.key_length"), default=hidden // heads)
    if size % 2:
        raise metadata.refusal(own("attention.key_length"), f"an even size of heads, found {size}")
    metadata.only(own("attention.value_length"), size)
    metadata.only(own("rope.dimension_count"), size)
    return {"num_attention_heads": heads, "num_key_value_heads": key_heads, "head_dim": size}


def _rope(metadata: Metadata) -> dict[str, Any]:
    """Return the rotary embedding's parameters; as in llama.cpp, a factor without a type is linear, a factor 0 none."""
    own = metadata.own
    metadata.only(own("rope.scaling.type"), "none", "linear")
    theta = {"rope_theta": _shortest(metadata.number(own("rope.freq_base"), default=10000.0))}
    key = own("rope.scaling.factor")
    factor = 1.0 if metadata.has(key, 0) else metadata.number(key, default=1.0)
    if factor == 1 or metadata.has(own("rope.scaling.type"), "none"):
        return {"rope_type": "default", **theta}
    return {"rope_type": "linear", "factor": _shortest(factor), **theta}


def _shortest(value: float) -> float:
    """Return the shortest decimal of a float32, as 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))
