"""Weights of a GGUF file under their Hugging Face names.

Llama's query and key heads store the two rows of a rotary pair next to each other in GGUF, and in separate halves in
Hugging Face's files, so their rows are reordered. Qwen2's stand in separate halves in both.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gguf import dequantize

from prunelib.errors import SourceError
from prunelib.sources.gguf.header import GGUFTensor
from prunelib.sources.gguf.metadata import Metadata

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
_Names = Mapping[
    str, tuple[str, tuple[str, ...]]
]  # GGUF name: Hugging Face name and shape, with sizes named as in _sizes
_OUTER: _Names = {
    EMBEDDING: ("model.embed_tokens.weight", ("vocabulary", "hidden")),
    "output_norm.weight": ("model.norm.weight", ("hidden",)),
}
_OWN_HEAD: _Names = {HEAD: ("lm_head.weight", ("vocabulary", "hidden"))}
_BLOCK: _Names = {
    "attn_norm.weight": ("input_layernorm.weight", ("hidden",)),
    "attn_q.weight": ("self_attn.q_proj.weight", ("queries", "hidden")),
    "attn_k.weight": ("self_attn.k_proj.weight", ("keys", "hidden")),
    "attn_v.weight": ("self_attn.v_proj.weight", ("keys", "hidden")),
    "attn_output.weight": ("self_attn.o_proj.weight", ("hidden", "queries")),
    "ffn_norm.weight": ("post_attention_layernorm.weight", ("hidden",)),
    "ffn_gate.weight": ("mlp.gate_proj.weight", ("mlp", "hidden")),
    "ffn_up.weight": ("mlp.up_proj.weight", ("mlp", "hidden")),
    "ffn_down.weight": ("mlp.down_proj.weight", ("hidden", "mlp")),
}
_BIASES: _Names = {
    "attn_q.bias": ("self_attn.q_proj.bias", ("queries",)),
    "attn_k.bias": ("self_attn.k_proj.bias", ("keys",)),
    "attn_v.bias": ("self_attn.v_proj.bias", ("keys",)),
}
_BLOCKS = {"llama": _BLOCK, "qwen2": {**_BLOCK, **_BIASES}}
_ROTATED = {"llama": ("attn_q.weight", "attn_k.weight"), "qwen2": ()}
_SAME = 0.5  # relative distance up to which two matrices are one, quantised twice; of unrelated ones it is 1.4


def weights(
    metadata: Metadata, tensors: Mapping[str, GGUFTensor], config: Mapping[str, Any], embedding: str = EMBEDDING
) -> dict[str, np.ndarray]:
    """Return all weights by Hugging Face name, float32, C-contiguous.

    Parameters
    ----------
    tensors
        Those of the file, by name.
    config
        The model's ``config.json``, which gives their shapes.
    embedding
        The tensor with the embedding: ``output.weight`` for both embedding and head.

    Raises
    ------
    SourceError
        If a tensor is missing, unknown, of another shape, not finite, or stored in a way that cannot be dequantised.
    """
    file, blocks = metadata.name, config["num_hidden_layers"]
    if blocks > len(tensors):
        raise metadata.refusal(metadata.own("block_count"), f"no more than its {len(tensors)} tensors")
    expected = _expected(config)
    if embedding != EMBEDDING:
        tensors = _without_copy(file, tensors, embedding)
    _check_names(file, set(tensors), set(expected))
    for source, (_, shape) in expected.items():
        if tensors[source].shape != shape:
            raise SourceError(f"{file}: {source} has shape {tensors[source].shape}, its metadata says {shape}")
    arrays = {}
    for source, (name, _) in expected.items():
        array = _dequantised(file, source, tensors[source])
        is_rotated = source.endswith(_ROTATED[config["model_type"]])
        arrays[name] = _halves_apart(array, config["head_dim"]) if is_rotated else array
    return arrays


def _check_names(file: str, found: set[str], expected: set[str]) -> None:
    unknown, missing = sorted(found - expected), sorted(expected - found)
    if unknown or missing:
        raise SourceError(
            f"{file}: tensors unknown: {unknown[:3]}, missing: {missing[:3]}; expected those of its metadata"
        )


def _without_copy(file: str, tensors: Mapping[str, GGUFTensor], embedding: str) -> dict[str, GGUFTensor]:
    """Return the tensors with that of ``embedding`` as the embedding, where it is the same matrix as the one there."""
    if not {embedding, EMBEDDING} <= set(tensors):
        raise SourceError(
            f"{file}: expected both {embedding} and {EMBEDDING}, of which params.yaml says that one is a copy"
        )
    kept, copy = (_dequantised(file, name, tensors[name]) for name in (embedding, EMBEDDING))
    distance = np.linalg.norm(kept - copy) / np.linalg.norm(kept) if kept.shape == copy.shape else np.inf
    if not distance <= _SAME:
        raise SourceError(
            f"{file}: {embedding} and {EMBEDDING} differ by {distance:.0%}, expected the same matrix twice"
        )
    return {name: tensors[embedding] if name == EMBEDDING else tensors[name] for name in tensors if name != embedding}


def _expected(config: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Map the GGUF name of every tensor of the model to its Hugging Face name and shape."""
    sizes = {
        "vocabulary": config["vocab_size"],
        "hidden": config["hidden_size"],
        "mlp": config["intermediate_size"],
        "queries": config["num_attention_heads"] * config["head_dim"],
        "keys": config["num_key_value_heads"] * config["head_dim"],
    }
    names = dict(_OUTER if config["tie_word_embeddings"] else {**_OUTER, **_OWN_HEAD})
    for block in range(config["num_hidden_layers"]):
        for source, (name, axes) in _BLOCKS[config["model_type"]].items():
            names[f"blk.{block}.{source}"] = (f"model.layers.{block}.{name}", axes)
    return {source: (name, tuple(sizes[axis] for axis in axes)) for source, (name, axes) in names.items()}


def _dequantised(file: str, name: str, tensor: GGUFTensor) -> np.ndarray:
    """Return the values of a tensor, float32, in its shape."""
    try:
        values = dequantize(tensor.data, tensor.kind)
    except NotImplementedError:
        raise SourceError(f"{file}: {name} is stored as {tensor.kind.name}, which gguf cannot dequantise") from None
    array = np.ascontiguousarray(values, dtype=np.float32).reshape(tensor.shape)
    if not np.isfinite(array).all():
        raise SourceError(f"{file}: {name} contains NaN or infinity, expected finite values")
    return array


def _halves_apart(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Reorder the rows of each head from (pair, half) to (half, pair)."""
    rows, inputs = weight.shape
    by_pair = weight.reshape(rows // head_dim, head_dim // 2, 2, inputs)  # (heads, pairs, halves, inputs)
    return np.ascontiguousarray(by_pair.swapaxes(1, 2)).reshape(rows, inputs)
