"""Configurations of models, as their config.json has them."""

import json
from pathlib import Path

from families import DENSE, MIXTURE
from transformers import AutoConfig

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
LLAMA_70B = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}

PUBLISHED = {
    "llama31_8b": LLAMA_8B,
    "gemma2_9b": {
        "model_type": "gemma2",
        "hidden_size": 3584,
        "intermediate_size": 14336,
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "vocab_size": 256000,
        "torch_dtype": "float32",
    },
    "yi15_9b": {
        **LLAMA_8B,
        "intermediate_size": 11008,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "vocab_size": 64000,
    },
    "deepseek_7b": {
        **LLAMA_8B,
        "intermediate_size": 11008,
        "num_hidden_layers": 30,
        "num_key_value_heads": 32,
        "vocab_size": 102400,
    },
    "qwen25_7b": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
    "qwen25_14b": {
        "model_type": "qwen2",
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
}
"""What the hub has of the models of the papers, by their names in params.yaml."""


def written(family: str, **changes) -> dict:
    """The config.json that transformers writes of a tiny model."""
    return json.loads(AutoConfig.for_model(family, **{**DENSE, **MIXTURE}[family] | changes).to_json_string())


def published(name: str) -> dict:
    """The config.json that a model was published with."""
    return json.loads(Path(__file__).with_name("published").joinpath(f"{name}.json").read_text())
