"""Tiny configurations of any model family: the family's own defaults with every size made small.

Sizes are known by their names, and lists with an entry per layer keep one layer of each kind. Where a family's sizes
depend on each other in a way of its own, a few numbers are given by hand.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

WORDS, LENGTH = 64, 64
FAMILIES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))

_LAYERS = re.compile(
    r"^(num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|num_(en|de)coder_layers|num_blocks)$"
)
_SIZES = [  # the first pattern that a name contains gives the number, if that makes it smaller
    (r"codebook|audio_vocab", 32),
    (r"vocab|unpadded", WORDS),
    (r"(max|num)_position|n_positions|max_seq|context_length|model_max_length|(source|target)_positions|n_ctx", LENGTH),
    (r"sliding_window|window_size|local_attention|chunk_size|window_len|rel_extent|window$", 8),
    (r"chunk_length|block_size", 8),
    (r"experts_per_tok|moe_k$|moe_topk|num_selected|zero_expert|top_k_experts", 2),
    (r"topk_group", 1),
    (r"n_group$|expert_group|n_groups|o_groups", 2),
    (r"num_(local_)?experts$|routed_experts$|moe_num_experts|num_experts_total", 4),
    (r"index_topk", 8),
    (r"(mamba|ssm|linear).*(num|n)_heads|(mamba|n_mamba)_?(n_)?heads$|num_value_heads", 4),
    (r"kv_heads|key_value_heads|key_heads|query_groups", 2),
    (r"mamba_(head_?dim|d_head)", 16),
    (r"(attention_heads|_heads|^n_head|heads|per_ngram)$", 4),
    (r"head_(dim|size)|kv_channels|d_kv|d_head|dim_head|rotary_dim|head_hidden", 8),
    (r"(lora|dt|time_step|laurel|adapter|norm)_rank|lowrank|d_rel", 16),
    (r"ngram_vocab_size_base", WORDS),
    (r"d_state|state_size", 8),
    (r"moe.*(intermediate|ffn)|expert.*(intermediate|ffn)|shared_expert.*size", 24),
    (r"mamba_d_ssm", 64),
    (r"intermediate|ffn|dim_ff|d_?ff$|d_inner|feed_forward_size|mlp_dim", 48),
    (r"hidden_size_per_layer|ple_embed_dim|router_hidden", 16),
    (
        r"hidden_size|d_model|n_embd|emb_dim|embedding_(dim|size)|embed_(proj_)?dim|lru_width|attention_hidden|out_dim",
        32,
    ),
    (r"(layer_period|window_pattern|group_size|layer_step|attn_res_block)$", 2),
    (r"first_k_dense|max_window_layers|num_dense_layers|dense_layers|kv_shared_layers|layer_start", 1),
    (r"num_layers_per_stack", 2),
]
_IDS = re.compile(r"(token|start|end)_(id|index)$|image_token|mask_index")
_ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BY_LAYER = {"layer_types", "mlp_layer_types", "layers_block_type", "block_types"}
_NUMBERED = {"mlp_only_layers", "moe_layers", "full_attn_idxs", "hybrid_layer_ids", "cross_attention_layers"}

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
BY_HAND: dict[str, dict[str, Any]] = {
    "bigbird_pegasus": {"attention_type": "original_full"},
    "big_bird": {"attention_type": "original_full"},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "hidden_size": 32},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots3_note_text": {"per_layer_config": {}, "head_dim": 16},
    "falcon_h1": {"mamba_d_ssm": 32},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": [48] * 4,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"qk_head_dim": 16},
    "mamba2": {"head_dim": 16},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "reformer": {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local"] * 2},
    "xlnet": {"d_head": 8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
}


def tiny_config(family: str) -> PreTrainedConfig:
    """Return the configuration of a family with its sizes made small."""
    whole = AutoConfig.for_model(family)
    numbers = {**_shrunk(whole), **BY_HAND.get(family, {})}
    return AutoConfig.for_model(family, **numbers)


def _shrunk(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the arguments of a config class that make it small, those of its parts included."""
    taken = inspect.signature(type(config).__init__).parameters.keys() | set(type(config).attribute_map.values())
    values = {key: value for key, value in config.to_dict().items() if key in taken}
    numbers = dict(_numbers(values))
    kept = _kept_layers(values)
    for key, value in values.items():
        if _LAYERS.search(key) and isinstance(value, int):
            numbers[key] = min(len(kept), value)
        elif key in _NUMBERED and isinstance(value, Sequence):
            numbers[key] = [position for position, layer in enumerate(kept) if layer in value]
        elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) == _layers(values):
            numbers[key] = [value[layer] for layer in kept]
    for part in type(config).sub_configs:
        if isinstance(inner := getattr(config, part, None), PreTrainedConfig):
            numbers[part] = {**_shrunk(inner), **({"model_type": inner.model_type} if inner.model_type else {})}
    heads, keys = (_given(values, name) for name in ("attention_heads", "key_value_heads"))
    if heads and values[heads] == values.get(keys):
        numbers[keys] = numbers[heads]
    if "is_decoder" in taken and not values.get("is_decoder", True):
        numbers["is_decoder"] = True
    return numbers


def _given(values: Mapping[str, Any], name: str) -> str:
    """Return the first key with an integer whose name contains a name."""
    return next((key for key, value in values.items() if key.endswith(name) and isinstance(value, int)), "")


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    free = iter(range(WORDS - 1, 2, -1))
    for key, value in values.items():
        if key in _ENDS and value is not None:
            yield key, _ENDS[key]
        elif isinstance(value, int) and not isinstance(value, bool):
            if _IDS.search(key):
                yield key, next(free)
            else:
                small = next((number for pattern, number in _SIZES if re.search(pattern, key)), value)
                yield key, min(value, small)


def _layers(values: Mapping[str, Any]) -> int:
    return next((value for key, value in values.items() if _LAYERS.search(key) and isinstance(value, int)), 0)


def _kept_layers(values: Mapping[str, Any]) -> list[int]:
    """Return the numbers of the layers that stay: the first of each kind, and at least two."""
    count = _layers(values)
    lists = [
        value
        for key, value in values.items()
        if key in _BY_LAYER and isinstance(value, Sequence) and len(value) == count
    ]
    numbered = [values[key] for key in _NUMBERED if isinstance(values.get(key), Sequence)]
    first: dict[Any, int] = {}
    for layer in range(count):
        kind = (*(each[layer] for each in lists), *(layer in each for each in numbered))
        first.setdefault(kind, layer)
    kept = sorted(first.values())
    return kept if len(kept) > 1 else [0, 1]
