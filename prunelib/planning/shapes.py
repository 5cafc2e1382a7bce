"""The prunable matrices of every decoder block, from a Hugging Face config.json: one rule per model family, no torch.

The tests compare the rules with the layers that :func:`prunelib.model.structure.find_layers` finds in real models.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from prunelib.errors import ModelError

WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Matrix(NamedTuple):
    """Prunable matrices (rows, inputs) of a block with equal shapes: ``copies`` is the number of experts, or 1.

    ``gram`` names the first matrix of the block that reads the same input.
    """

    name: str
    rows: int
    inputs: int
    gram: str
    copies: int = 1

    @property
    def weights(self) -> int:
        """Number of weights in all copies."""
        return self.copies * self.rows * self.inputs


@dataclass(frozen=True)
class Block:
    """One decoder block: its prunable matrices, and the number of matrix weights never pruned (gates of experts)."""

    matrices: tuple[Matrix, ...]
    dense: int = 0

    @property
    def inputs(self) -> list[int]:
        """Widths of its distinct inputs, one per Gram matrix."""
        readers = [matrix for matrix in self.matrices if matrix.gram == matrix.name]
        return [matrix.inputs for matrix in readers for _ in range(matrix.copies)]

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(matrix.weights for matrix in self.matrices)


@dataclass(frozen=True)
class Outline:
    """The sizes of a model that determine its resource needs; norms and biases are not counted.

    Attributes
    ----------
    family
        The model's ``model_type``.
    known
        Whether the family has a rule; if not, the shapes are those of a Llama with the same numbers.
    blocks
        Blocks in model order.
    other
        Number of weights outside the blocks: embeddings, head, positions.
    hidden, vocabulary
        Width of the hidden states between blocks; number of tokens in the vocabulary.
    dtype
        Dtype in which the weights are stored.
    """

    family: str
    known: bool
    blocks: tuple[Block, ...]
    other: int
    hidden: int
    vocabulary: int
    dtype: str

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(block.prunable for block in self.blocks)

    @property
    def weights(self) -> int:
        """Number of all weights."""
        return self.other + sum(block.prunable + block.dense for block in self.blocks)

    @property
    def merged(self) -> int:
        """Number of weights of experts stored as separate matrices, which transformers merges in memory."""
        experts = (matrix for block in self.blocks for matrix in block.matrices if matrix.copies > 1)
        return 0 if self.family in _MERGED_IN_FILES else sum(matrix.weights for matrix in experts)


def outline(config: Mapping[str, Any]) -> Outline:
    """Return the matrices of every block of the model that a configuration describes.

    Raises
    ------
    ModelError
        If a number that the family's rule needs is missing or invalid, or the dtype is unknown.
    """
    text = {**config, **(config.get("text_config") or {})}
    family = str(text.get("model_type"))
    rule, defaults = _RULES.get(family, (_llama, {}))
    numbers = _Numbers({**_DEFAULTS, **defaults, **{key: value for key, value in text.items() if value is not None}})
    return Outline(
        family=family,
        known=family in _RULES,
        blocks=tuple(rule(numbers, block) for block in range(numbers["num_hidden_layers"])),
        other=_tables(numbers),
        hidden=numbers["hidden_size"],
        vocabulary=numbers["vocab_size"],
        dtype=_stored_dtype(config, text),
    )


def _stored_dtype(*configs: Mapping[str, Any]) -> str:
    named = [config[key] for config in configs for key in ("dtype", "torch_dtype") if config.get(key)]
    dtype = str((named or ["float32"])[0])
    if dtype not in WEIGHT_BYTES:
        raise ModelError(f"config.json: dtype = {dtype!r}, expected one of {', '.join(WEIGHT_BYTES)}")
    return dtype


_ALIASES = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"}


class _Numbers:
    """A configuration whose numbers are checked on access."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = {_ALIASES.get(key, key): value for key, value in values.items()}

    def __getitem__(self, key: str) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f"config.json: {key} = {value!r}, expected a whole number above 0")
        return value

    def given(self, key: str, otherwise: int) -> int:
        """Return the number under a key, or if there is none ``otherwise``, the value that transformers derives."""
        return self[key] if key in self.values else otherwise


def _reading(gram: str, *matrices: tuple[str, int, int], copies: int = 1) -> tuple[Matrix, ...]:
    """Return matrices (name, rows, inputs) that read the input of ``gram``."""
    return tuple(Matrix(*matrix, gram, copies) for matrix in matrices)


def _alone(*matrices: tuple[str, int, int]) -> tuple[Matrix, ...]:
    """Return matrices (name, rows, inputs) that each have their own input."""
    return tuple(Matrix(*matrix, matrix[0]) for matrix in matrices)


def _heads(config: _Numbers) -> tuple[int, int]:
    """Return the width of all queries, and of all keys."""
    heads = config["num_attention_heads"]
    width = config.given("head_dim", config["hidden_size"] // heads)
    return heads * width, config.given("num_key_value_heads", heads) * width


def _attention(config: _Numbers) -> tuple[Matrix, ...]:
    hidden, (query, key) = config["hidden_size"], _heads(config)
    inward = ("q_proj", query, hidden), ("k_proj", key, hidden), ("v_proj", key, hidden)
    return _reading("q_proj", *inward) + _alone(("o_proj", hidden, query))


def _gated_mlp(hidden: int, inner: int, prefix: str = "", copies: int = 1) -> tuple[Matrix, ...]:
    gate, up, down = (f"{prefix}{name}" for name in ("gate_proj", "up_proj", "down_proj"))
    inward = (gate, inner, hidden), (up, inner, hidden)
    return _reading(gate, *inward, copies=copies) + _reading(down, (down, hidden, inner), copies=copies)


def _llama(config: _Numbers, _block: int) -> Block:
    return Block(_attention(config) + _gated_mlp(config["hidden_size"], config["intermediate_size"]))


def _phi3(config: _Numbers, _block: int) -> Block:
    hidden, inner, (query, key) = config["hidden_size"], config["intermediate_size"], _heads(config)
    attention = ("o_proj", hidden, query), ("qkv_proj", query + 2 * key, hidden)
    return Block(_alone(*attention, ("gate_up_proj", 2 * inner, hidden), ("down_proj", hidden, inner)))


def _opt(config: _Numbers, _block: int) -> Block:
    hidden, inner = config["hidden_size"], config["ffn_dim"]
    inward = ((name, hidden, hidden) for name in ("k_proj", "v_proj", "q_proj"))
    outward = ("out_proj", hidden, hidden), ("fc1", inner, hidden), ("fc2", hidden, inner)
    return Block(_reading("k_proj", *inward) + _alone(*outward))


def _gpt_neox(config: _Numbers, _block: int) -> Block:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    attention = ("query_key_value", 3 * hidden, hidden), ("dense", hidden, hidden)
    return Block(_alone(*attention, ("dense_h_to_4h", inner, hidden), ("dense_4h_to_h", hidden, inner)))


def _gpt2(config: _Numbers, _block: int) -> Block:
    hidden = config["hidden_size"]
    inner = config.given("n_inner", 4 * hidden)
    attention = ("c_attn", 3 * hidden, hidden), ("attn.c_proj", hidden, hidden)
    return Block(_alone(*attention, ("c_fc", inner, hidden), ("mlp.c_proj", hidden, inner)))


def _experts(number_key: str, inner_key: str) -> "_Rule":
    """Return the rule for blocks with Llama attention and experts that are each a Llama MLP."""

    def rule(config: _Numbers, _block: int) -> Block:
        hidden, number = config["hidden_size"], config[number_key]
        experts = _gated_mlp(hidden, config[inner_key], "experts.", number)
        return Block(_attention(config) + experts, dense=number * hidden)

    return rule


def _granitemoe(config: _Numbers, _block: int) -> Block:
    hidden, inner, number = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    inward = _reading("experts.input_linear", ("experts.input_linear", 2 * inner, hidden), copies=number)
    outward = _reading("experts.output_linear", ("experts.output_linear", hidden, inner), copies=number)
    return Block(_attention(config) + inward + outward, dense=number * hidden)


def _qwen_moe(config: _Numbers, block: int) -> Block:
    """Return a block with experts, or a Llama block; Qwen2's expert blocks add a shared expert with its own gate."""
    if block in config.values["mlp_only_layers"] or (block + 1) % config["decoder_sparse_step"]:
        return _llama(config, block)
    number = "num_experts" if "num_experts" in config.values else "num_local_experts"  # on the hub; in transformers 5
    sparse = _experts(number, "moe_intermediate_size")(config, block)
    if config.values["model_type"] == "qwen3_moe":
        return sparse
    hidden = config["hidden_size"]
    shared = _gated_mlp(hidden, config["shared_expert_intermediate_size"], "shared_expert.")
    return Block(sparse.matrices + shared, dense=sparse.dense + hidden)


def _tables(config: _Numbers) -> int:
    """Return the number of weights of the embeddings, of the head unless tied, and of learnt positions."""
    hidden, width = config["hidden_size"], config.given("word_embed_proj_dim", config["hidden_size"])
    tables = (1 if config.values["tie_word_embeddings"] else 2) * config["vocab_size"] * width
    return tables + sum(_positions(config, hidden)) + (2 * width * hidden if width != hidden else 0)


def _positions(config: _Numbers, hidden: int) -> Iterator[int]:
    if config.values["model_type"] == "opt":
        yield (config["max_position_embeddings"] + 2) * hidden  # OPT's positions begin at 2
    if config.values["model_type"] == "gpt2":
        yield config["n_positions"] * hidden


_Rule = Callable[[_Numbers, int], Block]
_MERGED_IN_FILES = {"granitemoe"}
_DEFAULTS = {"tie_word_embeddings": False, "model_type": None}
_TIED = {"tie_word_embeddings": True}
_QWEN_MOE = {"decoder_sparse_step": 1, "mlp_only_layers": ()}
_RULES: dict[str, tuple[_Rule, dict[str, Any]]] = {
    # model_type: its rule, and transformers' defaults for keys that a config.json may omit
    "llama": (_llama, {}),
    "mistral": (_llama, {"num_key_value_heads": 8}),
    "qwen2": (_llama, {"num_key_value_heads": 32}),
    "qwen3": (_llama, {"num_key_value_heads": 32, "head_dim": 128}),
    "gemma2": (_llama, {**_TIED, "num_key_value_heads": 4, "head_dim": 256}),
    "gemma3_text": (_llama, {**_TIED, "num_key_value_heads": 4, "head_dim": 256}),
    "phi3": (_phi3, {}),
    "opt": (_opt, _TIED),
    "gpt_neox": (_gpt_neox, {}),
    "gpt2": (_gpt2, _TIED),
    "mixtral": (_experts("num_local_experts", "intermediate_size"), {"num_key_value_heads": 8}),
    "olmoe": (_experts("num_experts", "intermediate_size"), {}),
    "granitemoe": (_granitemoe, {}),
    "qwen2_moe": (_qwen_moe, _QWEN_MOE),
    "qwen3_moe": (_qwen_moe, {**_QWEN_MOE, "num_key_value_heads": 4}),
}
FAMILIES = tuple(_RULES)
