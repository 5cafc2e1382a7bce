"""Conversion of Llama GGUF files to a standard Hugging Face folder: float32 safetensors, configuration, tokenizer.

Quantised tensors are dequantised by llama.cpp's own ``gguf`` package. In each query and key head, GGUF stores the two
rows of a rotary pair next to each other, and Hugging Face stores them in separate halves, so the rows are reordered.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from prunelib.errors import SourceError
from prunelib.runtime import store

_SUPPORTED: Mapping[str, tuple[Any, ...]] = {  # metadata key: supported values, None: absent
    "general.architecture": ("llama",),
    "llama.rope.scaling.type": (None, "none"),
    "tokenizer.ggml.model": ("gpt2",),
    "tokenizer.ggml.pre": ("smollm",),
    "tokenizer.ggml.add_bos_token": (None, False),
    "tokenizer.ggml.add_eos_token": (None, False),
}
_OUTER = {  # GGUF name: Hugging Face name and shape, with sizes named as in _expected
    "token_embd": ("model.embed_tokens", ("vocabulary", "hidden")),
    "output_norm": ("model.norm", ("hidden",)),
}
_HEAD = {"output": ("lm_head", ("vocabulary", "hidden"))}
_BLOCK = {
    "attn_norm": ("input_layernorm", ("hidden",)),
    "attn_q": ("self_attn.q_proj", ("queries", "hidden")),
    "attn_k": ("self_attn.k_proj", ("keys", "hidden")),
    "attn_v": ("self_attn.v_proj", ("keys", "hidden")),
    "attn_output": ("self_attn.o_proj", ("hidden", "queries")),
    "ffn_norm": ("post_attention_layernorm", ("hidden",)),
    "ffn_gate": ("mlp.gate_proj", ("mlp", "hidden")),
    "ffn_up": ("mlp.up_proj", ("mlp", "hidden")),
    "ffn_down": ("mlp.down_proj", ("hidden", "mlp")),
}
_ROTATED = ("attn_q.weight", "attn_k.weight")
_TOKEN_ROLES = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
}
_NORMAL_TOKEN, _CONTROL_TOKEN = 1, 3


def convert(path: Path, folder: Path) -> None:
    """Write the model in ``path`` as a Hugging Face folder.

    Parameters
    ----------
    path
        A GGUF file, version 2 or 3.
    folder
        Existing folder for ``model.safetensors`` (float32), ``config.json``, ``tokenizer.json``,
        ``tokenizer_config.json`` and, if the file has a chat template, ``chat_template.jinja``. The tokenizer adds no
        special tokens.

    Raises
    ------
    SourceError
        If the file is truncated or not GGUF, or its architecture, its tokenizer or a tensor is not supported.
    ArtifactError
        If a file could not be written.
    """
    metadata, tensors = _read(path)
    config = _config(metadata, tied="output.weight" not in tensors)
    weights = _weights(path, tensors, config)
    with store.replacing(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    store.write_json(folder / "config.json", config)
    _write_tokenizer(metadata, folder)


class _Metadata(dict[str, Any]):
    """Metadata of a GGUF file; a missing key raises SourceError."""

    def __init__(self, path: Path, reader: GGUFReader) -> None:
        super().__init__((name, field.contents()) for name, field in reader.fields.items())
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise SourceError(f"{self.path.name}: no {key} in its metadata")


def _read(path: Path) -> tuple[_Metadata, dict[str, ReaderTensor]]:
    try:
        reader = GGUFReader(path)
        metadata = _Metadata(path, reader)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise SourceError(f"{path.name}: truncated, damaged or not a GGUF file ({error})") from None
    for key, known in _SUPPORTED.items():
        if metadata.get(key) not in known:
            expected = " or ".join(str(value) for value in known if value is not None)
            raise SourceError(f"{path.name}: its {key} is {metadata.get(key)!r}, only {expected} can be read")
    return metadata, {tensor.name: tensor for tensor in reader.tensors}


def _config(metadata: _Metadata, *, tied: bool) -> dict[str, Any]:
    heads = metadata["llama.attention.head_count"]
    hidden = metadata["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_size": hidden,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "head_dim": metadata.get("llama.attention.key_length", hidden // heads),
        "hidden_act": "silu",
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": _shortest(metadata["llama.attention.layer_norm_rms_epsilon"]),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": _shortest(metadata.get("llama.rope.freq_base", 10000.0)),
        },
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        **{f"{role}_token_id": metadata.get(key) for role, key in _TOKEN_ROLES.items() if role != "unk"},
    }


def _shortest(value: float) -> float:
    """Return the shortest decimal of a float32, as 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _weights(path: Path, tensors: Mapping[str, ReaderTensor], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    expected = _expected(config)
    unknown = sorted(set(tensors) - set(expected))
    missing = sorted(set(expected) - set(tensors))
    if unknown or missing:
        raise SourceError(f"{path.name}: not a plain Llama; tensors unknown: {unknown[:3]}, missing: {missing[:3]}")
    weights = {}
    for source, (name, shape) in expected.items():
        weight = _dequantized(path, tensors[source])
        if weight.shape != shape:
            raise SourceError(f"{path.name}: {source} has shape {weight.shape}, its metadata says {shape}")
        weights[name] = _halves_apart(weight, config["head_dim"]) if source.endswith(_ROTATED) else weight
    return weights


def _expected(config: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Map the GGUF name of every tensor of the model to its Hugging Face name and shape."""
    sizes = {
        "vocabulary": config["vocab_size"],
        "hidden": config["hidden_size"],
        "mlp": config["intermediate_size"],
        "queries": config["num_attention_heads"] * config["head_dim"],
        "keys": config["num_key_value_heads"] * config["head_dim"],
    }
    outer = _OUTER if config["tie_word_embeddings"] else _OUTER | _HEAD
    names = {f"{source}.weight": (f"{name}.weight", axes) for source, (name, axes) in outer.items()}
    for block in range(config["num_hidden_layers"]):
        for source, (name, axes) in _BLOCK.items():
            names[f"blk.{block}.{source}.weight"] = (f"model.layers.{block}.{name}.weight", axes)
    return {source: (name, tuple(sizes[axis] for axis in axes)) for source, (name, axes) in names.items()}


def _dequantized(path: Path, tensor: ReaderTensor) -> np.ndarray:
    try:
        return np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    except NotImplementedError:
        kind = tensor.tensor_type.name
        raise SourceError(f"{path.name}: {tensor.name} is stored as {kind}, which gguf cannot dequantise") from None


def _halves_apart(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Reorder the rows of each head from (pair, half) to (half, pair)."""
    rows, inputs = weight.shape
    by_pair = weight.reshape(rows // head_dim, head_dim // 2, 2, inputs)  # (heads, pairs, halves, inputs)
    return np.ascontiguousarray(by_pair.swapaxes(1, 2)).reshape(rows, inputs)


def _write_tokenizer(metadata: _Metadata, folder: Path) -> None:
    store.write_text(folder / "tokenizer.json", _tokenizer(metadata).to_str(pretty=True))
    tokens = metadata["tokenizer.ggml.tokens"]
    roles = {f"{role}_token": tokens[metadata[key]] for role, key in _TOKEN_ROLES.items() if key in metadata}
    settings = {"tokenizer_class": "TokenizersBackend", "model_max_length": metadata["llama.context_length"], **roles}
    store.write_json(folder / "tokenizer_config.json", settings)
    if "tokenizer.chat_template" in metadata:
        store.write_text(folder / "chat_template.jinja", metadata["tokenizer.chat_template"])


def _tokenizer(metadata: _Metadata) -> Tokenizer:
    """Return byte-level BPE with SmolLM's pre-tokenisation: single digits, then GPT-2's words."""
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata["tokenizer.ggml.token_type"]
    if set(kinds) - {_NORMAL_TOKEN, _CONTROL_TOKEN}:
        name = metadata.path.name
        raise SourceError(f"{name}: token types {sorted(set(kinds))}, only 1 (normal) and 3 (control) are known")
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    return tokenizer
