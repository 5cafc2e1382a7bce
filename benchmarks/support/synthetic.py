"""Random layers of any shape that are about as hard to refine as real ones."""

from dataclasses import dataclass

import torch

from prunelib import NOfM, PerRow, select, wanda
from prunelib.kernels.scaling import equilibrate


@dataclass(frozen=True)
class Layer:
    """An equilibrated layer with Wanda's mask for a pattern; swaps stay within ``group`` columns."""

    weight: torch.Tensor
    gram: torch.Tensor
    mask: torch.Tensor
    group: int

    def rows(self, count: int) -> "Layer":
        """The layer of the first rows."""
        return Layer(self.weight[:count], self.gram, self.mask[:count], self.group)

    @property
    def pairs(self) -> int:
        """The u x j pairs of a row, pruned or not."""
        return len(self.gram) * self.group


def random_gram(inputs: int, seed: int, device: torch.device) -> torch.Tensor:
    """A correlated Gram matrix: a spectrum that decays as 1/k over half of the inputs, noise, scales, outliers."""
    generator = torch.Generator(device).manual_seed(seed)
    factors = torch.randn(inputs, inputs // 2, generator=generator, device=device)
    factors /= torch.arange(1, inputs // 2 + 1, device=device).sqrt()
    result = factors @ factors.T
    result.diagonal().add_(0.3 * result.diagonal().mean())
    scale = torch.exp(0.5 * torch.randn(inputs, generator=generator, device=device))
    scale[torch.randperm(inputs, generator=generator, device=device)[: max(1, inputs // 512)]] *= 20
    return result.mul_(scale).mul_(scale[:, None])


def random_layer(rows: int, gram: torch.Tensor, pattern: PerRow | NOfM, seed: int) -> Layer:
    """A random weight on a Gram matrix, ready for the backends."""
    generator = torch.Generator(gram.device).manual_seed(seed)
    weight = torch.randn(rows, len(gram), generator=generator, device=gram.device)
    scaled = equilibrate(weight, gram)
    group = pattern.group if isinstance(pattern, NOfM) else len(gram)
    return Layer(scaled.weight, scaled.gram, select(wanda(weight, gram), pattern), group)
