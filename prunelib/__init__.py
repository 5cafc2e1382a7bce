"""Pruning-mask selection and refinement for language models.

Legend, used everywhere
-----------------------
weight      (rows, inputs): one output a row, as ``torch.nn.Linear.weight``
gram        (inputs, inputs) float32: sum over tokens of x x^T, x the layer's input
mask        (rows, inputs) bool: True = kept; "n of m" means *keep n*
pattern     :class:`PerRow`, :class:`PerLayer` or :class:`NOfM`
loss        pruning error ||W X - (M*W) X||_F^2 = sum over rows of p^T G p, with p = (1 - m) * w
"""

from prunelib.gram import gram_matrix
from prunelib.objective import output_energy, pruning_error, row_losses
from prunelib.patterns import NOfM, PerLayer, PerRow, select
from prunelib.refined import Refined
from prunelib.refiners.sparsefw import Settings as SparseFW
from prunelib.refiners.sparsefw import refine as sparsefw
from prunelib.refiners.sparseswaps import Settings as SparseSwaps
from prunelib.refiners.sparseswaps import refine as sparseswaps
from prunelib.warmstarts.magnitude import saliency as magnitude
from prunelib.warmstarts.ria import Settings as RiaSettings
from prunelib.warmstarts.ria import saliency as ria
from prunelib.warmstarts.wanda import saliency as wanda

__all__ = [
    "NOfM",
    "PerLayer",
    "PerRow",
    "Refined",
    "RiaSettings",
    "SparseFW",
    "SparseSwaps",
    "gram_matrix",
    "magnitude",
    "output_energy",
    "pruning_error",
    "ria",
    "row_losses",
    "select",
    "sparsefw",
    "sparseswaps",
    "wanda",
]
