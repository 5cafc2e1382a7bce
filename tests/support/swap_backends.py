"""What the tests of every backend for swaps share: layers with a known answer, and results put together."""

import torch
from strategies import PATTERNS, Problem, problem

from prunelib import PerRow
from prunelib.kernels.interface import OF_ROWS


def finished(parts):
    """All rows of a backend's results, in order."""
    ordered = [result for _, result in sorted(parts, key=lambda part: part[0].start)]
    return {name: torch.cat([getattr(result, name) for result in ordered]) for name in OF_ROWS}


def check_the_pair_term(backend, device="cpu"):
    """One feature: the best joint swap leaves 1, u and j chosen apart would leave 100."""
    weight, gram = torch.tensor([[10.0, -1.0, 9.0, -9.0]], device=device), torch.ones(4, 4, device=device)
    mask = torch.tensor([[False, False, True, True]], device=device)
    result = finished(backend.swap_best(weight, gram, mask, 4, 1, 1))
    assert result["loss_before"].tolist() == [81.0]
    assert result["loss_after"].tolist() == [1.0]
    assert result["mask"].tolist() == [[False, True, True, False]]


def check_equal_swaps(backend, device="cpu"):
    """Of equal swaps the one of the lowest columns is made."""
    weight, gram = torch.tensor([[1.0, 1.0, 2.0, 2.0]], device=device), torch.eye(4, device=device)
    mask = torch.tensor([[True, True, False, False]], device=device)
    assert finished(backend.swap_best(weight, gram, mask, 4, 1, 1))["mask"].tolist() == [[False, True, True, False]]


def all_or_none():
    """A layer whose first row keeps all and whose third keeps none."""
    p = problem(6, PATTERNS[1], rows=4, inputs=9, tokens=30)
    mask = p.mask.clone()
    mask[0], mask[2] = True, False
    return Problem(p.weight, p.gram, mask, p.pattern)


def check_all_or_none(p, result):
    """The rows of :func:`all_or_none` that have no swap stay as they are, the others do not."""
    torch.testing.assert_close(result["mask"][::2], p.mask[::2])
    assert result["swaps"][::2].tolist() == [0, 0]
    assert result["optimal"][::2].all()
    torch.testing.assert_close(result["loss_after"][::2], result["loss_before"][::2])
    assert (result["swaps"][1::2] > 0).all()


def cancelling(seed):
    """A rank-one Gram matrix in which weights cancel exactly, with zero weights that swap for nothing."""
    generator = torch.Generator().manual_seed(seed)
    feature, weight = torch.randn(8, generator=generator), torch.randn(1, 8, generator=generator)
    weight[0, 3] = weight[0, 7] = 0
    feature[4] = 1
    weight[0, 4] = -(weight[0, 0] * feature[0] + weight[0, 1] * feature[1])
    mask = torch.tensor([[True, True, False, True, True, False, False, False]])
    return Problem(weight, torch.outer(feature, feature), mask, PerRow(sparsity=0.5))
