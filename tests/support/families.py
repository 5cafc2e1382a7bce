"""Tiny models of many families, with random weights under a seed: two blocks, 16 to 96 wide, 64 words."""

from pathlib import Path

import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

WORDS = 64
LENGTH = 64

_OPT = {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
_LLAMA = {**_OPT, "intermediate_size": 48, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA["max_position_embeddings"] = LENGTH
_OPT |= {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": LENGTH}

DENSE = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
    "gemma2": {**_LLAMA, "head_dim": 8, "sliding_window": 8},
    "gemma3_text": {**_LLAMA, "head_dim": 8, "sliding_window": 8},
    "phi3": _LLAMA,
    "opt": _OPT,
    "gpt_neox": {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"},
    "gpt2": {
        "vocab_size": WORDS,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": LENGTH,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}
_EXPERTS = {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MIXTURE = {
    "mixtral": {**_LLAMA, "num_local_experts": 4},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 40},
    "qwen3_moe": {**_EXPERTS, "head_dim": 8},
    "olmoe": _EXPERTS,
    "granitemoe": {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
}


_ENDS = {"vocab_size": WORDS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_GPTJ = {**_ENDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LENGTH, "rotary_dim": 4}
TUPLES = {  # families whose decoder blocks return the hidden states among others
    "bloom": {**_ENDS, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": _GPTJ,
    "falcon": {**_ENDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False},
    "gpt_neo": {
        **_ENDS,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": LENGTH,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gptj": _GPTJ,
    "mpt": {**_ENDS, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": LENGTH},
    "rwkv": {**_ENDS, "hidden_size": 32, "num_hidden_layers": 2, "context_length": LENGTH},
    "xlnet": {**_ENDS, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
}
SHARED = {  # families whose last blocks take keys and values of earlier ones
    "gemma4_text": {
        **_LLAMA,
        "num_hidden_layers": 4,
        "head_dim": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": WORDS,
        "hidden_size_per_layer_input": 16,
    },
}
_LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
_ROUTED = {**_LLAMA, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
RENAMED = {  # families whose files have other names than the model in memory
    "gemma3": {
        "text_config": {**_LLAMA, "head_dim": 8, "sliding_window": 8},
        "vision_config": {  # as many blocks as the text model, and larger ones
            "hidden_size": 96,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
        "boi_token_index": 60,
        "eoi_token_index": 61,
        "image_token_index": 62,
    },
    "hy_v3": {**_ROUTED, "first_k_dense_replace": 1},
    "laguna": _ROUTED,
}
DEEPSEEK = {  # gates that choose groups of experts first, beside shared experts
    "deepseek_v3": {
        **_LLAMA,
        **_LATENT,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 24,
        "n_shared_experts": 1,
    },
}
PARTIAL = {  # families whose blocks hold convolutions or recurrences
    "mamba": {**_ENDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "nemotron_h": {
        **_LLAMA,
        "head_dim": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "layers_block_type": ["mamba", "attention"],
    },
    "qwen3_5_text": {**_LLAMA, **_LINEAR, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
}
OTHER = {"gpt_oss": {**_LLAMA, "num_local_experts": 4, "head_dim": 8, "rope_parameters": {"rope_type": "default"}}}


ALL = {**DENSE, **MIXTURE, **TUPLES, **SHARED, **RENAMED, **DEEPSEEK, **PARTIAL, **OTHER}


def tiny_model(family: str, attention: str | None = None, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of the family in eval mode, always with the same random weights, biases and norms included."""
    return random_model(family, ALL[family], attention).to(dtype)


def random_model(family: str, numbers: dict, attention: str | None = None) -> PreTrainedModel:
    """The same with other numbers in its configuration, in float32."""
    config = AutoConfig.for_model(family, **numbers)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, experts_implementation="eager")
        for parameter in model.parameters():
            parameter.data.normal_(std=0.2).add_(float(parameter.ndim == 1) / 2)
    return model.eval().requires_grad_(False)


def read_by_expert(experts: torch.nn.Module, args: tuple[torch.Tensor, ...], layer) -> torch.Tensor:
    """What a matrix of one expert reads, (tokens, inputs), from the definition of experts, called with ``args``."""
    hidden, chosen = args[0].reshape(-1, args[0].shape[-1]), args[1]
    x = hidden[(chosen == layer.fused.expert).any(dim=-1)]
    if "gate_up" in layer.parameter:
        return x
    gate, up = functional.linear(x, experts.gate_up_proj[layer.fused.expert]).chunk(2, dim=-1)
    return functional.silu(gate) * up


def save(model: PreTrainedModel, folder: Path, max_shard_size: str = "1GB") -> Path:
    """Write a model as a Hugging Face folder, without a progress bar."""
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
    finally:
        logging.enable_progress_bar()
    return folder


def random_windows(samples: int, length: int, seed: int = 0) -> torch.Tensor:
    """Token ids (samples, length) int32."""
    return torch.randint(WORDS, (samples, length), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
