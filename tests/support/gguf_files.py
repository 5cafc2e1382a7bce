"""Tiny GGUF files, written from models of transformers."""

import gguf
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

HEADS, KEY_HEADS, HEAD_DIM, HIDDEN, MLP, LAYERS = 4, 2, 16, 64, 96, 2
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "1 2"]
TOKENS = [*CONTROL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
METADATA = {
    "general.architecture": "llama",
    "llama.block_count": LAYERS,
    "llama.context_length": 128,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": MLP,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEY_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 50000.0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3] * len(CONTROL) + [1] * (len(TOKENS) - len(CONTROL)),
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": "{{ messages }}",
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
QWEN2 = {key.replace("llama.", "qwen2."): value for key, value in METADATA.items()} | {
    "general.architecture": "qwen2",
    "tokenizer.ggml.pre": "qwen2",
}
QUANTISED = {"attn_q": gguf.GGMLQuantizationType.Q4_1, "attn_k": gguf.GGMLQuantizationType.Q8_0}


def tiny_llama(*, tied):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, head_dim=HEAD_DIM, vocab_size=len(TOKENS), max_position_embeddings=128,
        rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}, tie_word_embeddings=tied,
        initializer_range=0.3, pad_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tiny_qwen2(*, tied):
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, vocab_size=len(TOKENS), max_position_embeddings=128, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0}, tie_word_embeddings=tied,
        initializer_range=0.3, pad_token_id=2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(std=0.3)
    return model


def gguf_name(name):
    _, _, inner = name.rpartition("layers.")
    inner, _, kind = inner.rpartition(".")
    block, _, rest = inner.partition(".")
    return f"blk.{block}.{NAMES[rest]}.{kind}" if block.isdecimal() else f"{NAMES[inner]}.{kind}"


def pairs_together(weight, heads):
    """Rows as GGUF has them: of each head, row i of the first half, row i of the second half, and so on."""
    order = [
        HEAD_DIM * head + half * HEAD_DIM // 2 + i
        for head in range(heads)
        for i in range(HEAD_DIM // 2)
        for half in (0, 1)
    ]
    return weight[order]


def gguf_tensors(model):
    """GGUF name -> (stored array, type) of a model, its query and key weights quantised."""
    tensors = {}
    for name, parameter in model.named_parameters():
        stored, kind = gguf_name(name), None
        value = parameter.detach().numpy()
        if "attn_q" in stored or "attn_k" in stored:
            value = pairs_together(value, HEADS if "attn_q" in stored else KEY_HEADS)
            kind = QUANTISED[stored.split(".")[2]]
            value = gguf.quantize(value, kind)
        tensors[stored] = (value, kind)
    return tensors


def plain_tensors(model):
    """GGUF name -> (stored array, type) of a model as it is: no row moved, nothing quantised."""
    return {gguf_name(name): (parameter.detach().numpy(), None) for name, parameter in model.named_parameters()}


def write_gguf(path, metadata, tensors):
    writer = gguf.GGUFWriter(path, arch=metadata["general.architecture"])
    types = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    for key, value in metadata.items():
        if key != "general.architecture":
            types.get(type(value), writer.add_array)(key, value)
    for name, (value, kind) in tensors.items():
        writer.add_tensor(name, value, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
