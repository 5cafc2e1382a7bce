"""The sizes of a model that determine its resource needs: the prunable matrices of every decoder block."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from prunelib.model.layers import Layer

WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Matrix(NamedTuple):
    """A prunable matrix (rows, inputs) of a block; ``kind`` as in :class:`prunelib.model.layers.Layer`.

    ``has_gram``: whether it is the first in its block to read its input, so that the Gram matrix has its name.
    """

    kind: str
    rows: int
    inputs: int
    has_gram: bool = True

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.rows * self.inputs


@dataclass(frozen=True)
class Block:
    """One decoder block: its prunable matrices, and the number of parameters that are never pruned."""

    matrices: tuple[Matrix, ...]
    dense: int = 0

    @classmethod
    def of(cls, layers: Iterable[Layer], parameters: int | None = None) -> "Block":
        """Return the block with these layers; None: it has no other parameters."""
        matrices = tuple(Matrix(each.kind, each.rows, each.inputs, each.name == each.gram) for each in layers)
        prunable = sum(matrix.weights for matrix in matrices)
        return cls(matrices, 0 if parameters is None else parameters - prunable)

    @property
    def inputs(self) -> list[int]:
        """Widths of its distinct inputs, one per Gram matrix."""
        return [matrix.inputs for matrix in self.matrices if matrix.has_gram]

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(matrix.weights for matrix in self.matrices)


@dataclass(frozen=True)
class Outline:
    """The sizes of a model that determine its resource needs.

    Attributes
    ----------
    family
        The ``model_type`` of the language model.
    blocks
        Blocks in model order.
    other
        Number of parameters outside the blocks: embeddings, head, positions, and those of ``beside``.
    beside
        Number of parameters outside the language model, as those of a vision tower.
    merged
        Number of weights of experts stored as separate matrices, which transformers merges in memory.
    hidden, vocabulary
        Width of the hidden states between blocks; number of rows of the embedding.
    dtype
        Dtype in which the weights are stored.
    stays_dense
        A line for each reason why matrices of the blocks stay dense.
    """

    family: str
    blocks: tuple[Block, ...]
    other: int
    beside: int
    merged: int
    hidden: int
    vocabulary: int
    dtype: str
    stays_dense: tuple[str, ...] = ()

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(block.prunable for block in self.blocks)

    @property
    def weights(self) -> int:
        """Number of all parameters."""
        return self.other + sum(block.prunable + block.dense for block in self.blocks)
