"""Hypothesis strategies: layers as the library meets them, degenerate ones included."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from prunelib import NOfM, PerLayer, PerRow, select

PATTERNS = [PerRow(sparsity=s) for s in (0.29, 0.5, 0.6, 0.9)] + [
    NOfM(keep=n, group=m) for n, m in ((1, 4), (2, 4), (3, 4), (4, 8))
]
PER_LAYER = [PerLayer(sparsity=s) for s in (0.29, 0.6, 0.9)]


@dataclass(frozen=True)
class Problem:
    """A layer, a pattern and a mask to start from."""

    weight: torch.Tensor
    gram: torch.Tensor
    mask: torch.Tensor
    pattern: PerRow | PerLayer | NOfM

    @property
    def separable(self):
        """Inputs so alike in size, and so different in direction, that float64 tells any two swaps apart, or equal."""
        alive = self.gram.diagonal()[self.gram.diagonal() > 0]
        return len(alive) == 0 or (alive.max() / alive.min() < 1e8 and torch.linalg.matrix_rank(self.gram) > 1)

    @property
    def group(self):
        return min(self.pattern.groups(*self.weight.shape).size, self.weight.shape[1])


def problem(seed, pattern, rows, inputs, tokens, degenerate=""):
    """A random layer; ``degenerate`` names what is odd about it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    weight = torch.randn(rows, inputs, generator=generator)
    if degenerate == "dead inputs":
        x[:, ::3] = 0
    if degenerate == "all dead":
        x.zero_()
    if degenerate == "zero rows":
        weight[::2] = 0
    if degenerate == "ties":
        weight, x = weight.round(), x.round().sign()
    if degenerate == "twins":
        x[:, 1::2] = x[:, : inputs - inputs % 2 : 2][:, : x[:, 1::2].shape[1]]
    if degenerate == "huge and tiny rows":
        weight *= 10.0 ** torch.randint(-15, 16, (rows, 1), generator=generator)
    if degenerate == "huge and tiny inputs":
        x *= 10.0 ** torch.randint(-15, 16, (1, inputs), generator=generator)
    if degenerate == "cancelling" and inputs > 2:
        x = x[:, :1] * torch.ones(inputs)
        weight[:, 2::3] = 0
        weight[:, 1] = -weight[:, 0]
    mask = select(torch.rand(rows, inputs, generator=generator), pattern)
    gram = x.T @ x  # not on every processor symmetric to the last bit
    return Problem(weight, (gram + gram.T) / 2, mask, pattern)


DEGENERATE = [
    "",
    "dead inputs",
    "all dead",
    "zero rows",
    "ties",
    "twins",
    "cancelling",
    "huge and tiny rows",
    "huge and tiny inputs",
]


def poor(p):
    """Weights that any method improves on: -10 times the kept."""
    return -10 * p.weight.float().masked_fill(~p.mask, 0)


@st.composite
def problems(draw, max_inputs=16, patterns=PATTERNS):
    pattern = draw(st.sampled_from(patterns))
    step = pattern.group if isinstance(pattern, NOfM) else 1
    inputs = step * draw(st.integers(1, max_inputs // step))
    return problem(
        seed=draw(st.integers(0, 2**32)),
        pattern=pattern,
        rows=draw(st.integers(1, 5)),
        inputs=inputs,
        tokens=draw(st.sampled_from([1, inputs, 5 * inputs])),
        degenerate=draw(st.sampled_from(DEGENERATE)),
    )
