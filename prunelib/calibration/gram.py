"""Gram matrices of layer inputs: the sum of x x^T over tokens, the only data statistic that pruning needs."""

import torch

from prunelib.algebra.linalg import true_float32
from prunelib.algebra.tensors import real
from prunelib.calibration.statistics import InputStatistics
from prunelib.errors import ModelError, NumericalError
from prunelib.model.layers import Layer

_PANELS = {"cpu": 256, "cuda": 1024}  # columns: half the work of the full product, 1.5 times as fast on a CPU
_CHUNKS = {"cpu": 256, "cuda": 8192}  # tokens: on a CPU longer sums are split over threads, which changes bits
_HALVES = (torch.bfloat16, torch.float16)


def gram_matrix(inputs: torch.Tensor) -> torch.Tensor:
    """Compute the Gram matrix of a layer's inputs.

    Parameters
    ----------
    inputs
        (..., d), any floating dtype: one input per token.

    Returns
    -------
    torch.Tensor
        (d, d) float32, exactly symmetric: the sum over tokens of x x^T.

    Examples
    --------
    >>> prunelib.gram_matrix(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    tensor([[1., 2.],
            [2., 5.]])

    Raises
    ------
    NumericalError
        If the inputs are not of real floating point or have no dimension d, an input is NaN or infinite, or the sum
        overflows float32.
    """
    inputs = real("inputs", inputs)
    if inputs.ndim == 0 or inputs.shape[-1] == 0:
        raise NumericalError(f"inputs: shape {tuple(inputs.shape)}, expected (..., d) with at least one number a token")
    total = GramSum(inputs.shape[-1], inputs.device)
    total.add(inputs)
    return total.symmetric("inputs")


class GramSum:
    """An accumulating Gram matrix: only its upper triangle is valid."""

    def __init__(self, inputs: int, device: torch.device) -> None:
        self.gram = torch.zeros(inputs, inputs, dtype=torch.float32, device=device)
        self.total = torch.zeros(inputs, dtype=torch.float64, device=device)
        self.tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Add x^T x of inputs (..., d), computing the panels of the upper triangle only."""
        x = inputs.reshape(-1, inputs.shape[-1])  # (tokens, d)
        self.tokens += len(x)
        self.total += x.sum(dim=0, dtype=torch.float64)
        halves = x.is_cuda and x.dtype in _HALVES
        panel = _PANELS[x.device.type]
        with true_float32():
            for chunk in (x if halves else x.float()).split(_CHUNKS[x.device.type]):
                for start in range(0, x.shape[1], panel):
                    left, right = chunk[:, start : start + panel].T, chunk[:, start:]
                    _add_product(self.gram[start : start + panel, start:], left, right)

    def symmetric(self, name: str) -> torch.Tensor:
        """Return the full matrix, in place: the upper triangle mirrored; inputs below 1e-19 per token are dead."""
        self.gram.triu_()
        self.gram += self.gram.triu(1).T
        if not self.gram.isfinite().all():
            raise NumericalError(
                f"Gram matrix of {name}: NaN or infinity, expected finite inputs and squares in float32"
            )
        # Squares below the normal numbers of float32 are rounded by much more than their products with other inputs.
        dead = self.gram.diagonal() < torch.finfo(torch.float32).tiny * self.tokens
        self.gram[dead] = 0
        self.gram[:, dead] = 0
        return self.gram

    def complete(self, layer: Layer, tokens: int) -> InputStatistics:
        """Return the full matrix and the mean on the CPU; refuse a wrong token count, unless the layer is an expert."""
        if self.tokens != tokens and layer.fused is None:
            raise ModelError(
                f"{layer.name}: received {self.tokens} of {tokens} tokens, so it cannot be calibrated as a dense layer"
            )
        mean = (self.total / max(self.tokens, 1)).float()
        return InputStatistics(self.symmetric(layer.name).cpu(), mean.cpu(), self.tokens)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add a product to a float32 total; tensor cores multiply half-precision inputs exactly and sum in float32."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right, out_dtype=total.dtype)
