"""Pruning-mask selection and refinement for language models.

:func:`prune` prunes a loaded transformers model in place. Most others take a single matrix.

Legend, used everywhere
-----------------------
weight      (rows, inputs): one row per output, as ``torch.nn.Linear.weight``
gram        (inputs, inputs) float32: sum over tokens of x x^T, x the layer's input
mask        (rows, inputs) bool: True = kept; "n of m" means *keep n*
pattern     :class:`PerRow`, :class:`PerLayer` or :class:`NOfM`; from text by :func:`parse_pattern`
loss        pruning error ||W X - (M*W) X||_F^2 = sum over rows of p^T G p, with p = (1 - m) * w

The names in ``__all__`` are imported on first use, so that code without torch, such as the help of
the command ``prunelib``, starts fast.
"""

# ruff: noqa: F403, F405 - the names are those of prunelib.api

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

__all__ = [
    "ADMM",
    "ALPS",
    "RIA",
    "Atp",
    "BlockMoves",
    "BlockReconstruction",
    "Chain",
    "DSnoT",
    "Dlp",
    "ExtraInputs",
    "GivenMasks",
    "KeepMasks",
    "LeastSquares",
    "Magnitude",
    "NOfM",
    "NoRefinement",
    "Owl",
    "PerLayer",
    "PerRow",
    "PruningResult",
    "RandomScores",
    "Refined",
    "RefitSwaps",
    "RowExchange",
    "SemiStructured",
    "SparseFW",
    "SparseGPT",
    "SparseGPTUpdate",
    "SparseSwaps",
    "SparsityTable",
    "Verification",
    "Wanda",
    "admm",
    "alps",
    "apply_masks",
    "block_moves",
    "dsnot",
    "gram_matrix",
    "layer_results",
    "least_squares",
    "magnitude",
    "merge",
    "output_energy",
    "parse_pattern",
    "prune",
    "pruning_error",
    "push_to_hub",
    "random_scores",
    "read_masks",
    "refit_swaps",
    "results",
    "ria",
    "row_exchange",
    "row_losses",
    "select",
    "sparsefw",
    "sparsegpt",
    "sparsegpt_update",
    "sparseswaps",
    "to_semi_structured",
    "verify",
    "wanda",
    "write_masks",
]

if TYPE_CHECKING:
    from prunelib.api import *
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module("prunelib.api"), name)

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]
