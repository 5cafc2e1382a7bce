"""Settings in params.yaml that allocate the kept weights of a model to its layers.

Most allocations give each decoder block a sparsity of its own, by its importance. They differ in the importance alone:
measured from the block's Wanda scores (OWL, DLP), or its position (ATP). The number of weights that each layer keeps is
computed in :mod:`prunelib.pruning.budgets`.

To add one that measures, write its class here and add it to ``AnyAllocation``; one that does not also needs its case in
:func:`prunelib.pruning.budgets.patterns_by_shape`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from prunelib.errors import PatternError
from prunelib.runtime.threads import one_thread
from prunelib.settings import Settings

Spread = Annotated[float, Field(ge=0, lt=0.5)]
"""Half the difference between the highest and the lowest sparsity."""


class Allocation(Settings, ABC):
    """The base class of all allocations.

    Attributes
    ----------
    title
        What a pattern's text form adds for it.
    """

    title: ClassVar[str]

    def check(self, sparsity: float) -> None:
        """Refuse an allocation that no model allows at this mean sparsity.

        Raises
        ------
        PatternError
            If it is impossible.
        """


class BlockAllocation(Allocation):
    """The base class of allocations that give each block a sparsity of its own: the more important, the lower.

    Sparsities are linear in importance, and their mean over the blocks is that of the pattern.

    Attributes
    ----------
    width_key
        The setting that :meth:`width` depends on.
    """

    width_key: ClassVar[str]

    @abstractmethod
    def width(self, span: float) -> float:
        """Return the highest less the lowest sparsity, for importances that differ by at most ``span``."""

    def check(self, sparsity: float) -> None:
        """Refuse a width that does not fit around the mean sparsity.

        Raises
        ------
        PatternError
            If half of it is not less than both the share of pruned and the share of kept weights.
        """
        half = self.width(0.0) / 2
        self._check_range(sparsity - half, sparsity + half)

    def kept_shares(self, importances: Mapping[int, float], sparsity: float) -> dict[int, float]:
        """Return the kept share of each block; blocks of equal importance keep the same.

        Parameters
        ----------
        importances
            Importance of each block, by block number; any unit.
        sparsity
            The mean over the blocks.

        Raises
        ------
        PatternError
            If a block would keep all or none of its weights.
        """
        if not importances:
            return {}
        least = min(importances.values())
        span = max(importances.values()) - least
        width = self.width(span)
        raised = {block: width * (found - least) / span if span else 0.0 for block, found in importances.items()}
        mean = fmean(raised.values())
        shares = {block: 1 - sparsity + share - mean for block, share in raised.items()}
        self._check_range(1 - max(shares.values()), 1 - min(shares.values()))
        return shares

    def _check_range(self, lowest: float, highest: float) -> None:
        if not 0 < lowest <= highest < 1:
            raise PatternError(
                f"allocation.{self.width_key} = {getattr(self, self.width_key)}: too large, as sparsities of blocks "
                f"would be {lowest:.3f} to {highest:.3f}, expected between 0 and 1"
            )


class MeasuredAllocation(BlockAllocation):
    """The base class of allocations that measure every block before any is pruned."""

    @abstractmethod
    def importance(self, scores: torch.Tensor) -> float:
        """Return the importance of a block from the Wanda scores of all its weights, (weights,) float32."""


class Owl(MeasuredAllocation):
    """Blocks with more outliers keep more: outlier-weighed layerwise sparsity (Yin et al., 2310.05175, section 3.2).

    Attributes
    ----------
    outlier
        A weight is an outlier if its Wanda score exceeds this multiple of the mean of its block (M).
    spread
        The sparsities of the blocks lie within twice this (lambda).
    """

    title: ClassVar[str] = "OWL"
    width_key: ClassVar[str] = "spread"

    method: Literal["owl"] = "owl"
    outlier: Annotated[float, Field(gt=0, le=1e6)] = 5.0
    spread: Spread = 0.08

    def width(self, span: float) -> float:  # noqa: ARG002 - every allocation's signature
        """Return twice the spread."""
        return 2 * self.spread

    def importance(self, scores: torch.Tensor) -> float:
        """Return the share of outliers among a block's scores, (weights,) float32."""
        with one_thread():  # torch splits a long sum over threads
            return float((scores > self.outlier * scores.double().mean()).double().mean())


class Dlp(MeasuredAllocation):
    """Blocks with a lower median score keep more: dynamic layerwise pruning (Chen et al., 2505.23807).

    The paper's importance of a block is 1 - S / sum of S over blocks, S the median of the block's Wanda scores. The
    sparsities are linear between the least and the most important block, so that the normalisation cancels.

    Attributes
    ----------
    spread
        The sparsities of the blocks lie within twice this (alpha; the authors use 0.15 at 70%).
    """

    title: ClassVar[str] = "DLP"
    width_key: ClassVar[str] = "spread"

    method: Literal["dlp"] = "dlp"
    spread: Spread = 0.15

    def width(self, span: float) -> float:  # noqa: ARG002 - every allocation's signature
        """Return twice the spread."""
        return 2 * self.spread

    def importance(self, scores: torch.Tensor) -> float:
        """Return minus the median of a block's scores, (weights,) float32: of an even number, the lower of two."""
        return -float(scores.median())


class Atp(BlockAllocation):
    """Earlier blocks keep more: sparsities in arithmetic progression (Huang et al., 2502.14770, equation 10).

    Of L blocks, block l has sparsity ``sparsity + slope (l - (L - 1) / 2)``, l from 0. The paper searches the slope in
    steps of 0.002 for the lowest perplexity.

    Attributes
    ----------
    slope
        How much the sparsity rises from a block to the next (beta); less than 2 min(sparsity, 1 - sparsity) / (L - 1).
    """

    title: ClassVar[str] = "ATP"
    width_key: ClassVar[str] = "slope"

    method: Literal["atp"] = "atp"
    slope: Annotated[float, Field(ge=0, lt=1)] = 0.01

    def width(self, span: float) -> float:
        """Return the slope times the distance between the first and the last block."""
        return self.slope * span

    def importances(self, blocks: Iterable[int]) -> dict[int, float]:
        """Return the importance of each block, by block number: one less than that of the block before."""
        return {block: -float(block) for block in blocks}


class SparsityTable(Allocation):
    """Sparsities set by the user.

    Attributes
    ----------
    sparsities
        Sparsity by layer name, with ``*`` as a wildcard: ``{"*.layers.0.*": 0.4, "*.down_proj": 0.5}``; the first match
        is used. Layers without a match share the remaining budget.
    """

    title: ClassVar[str] = "by table"

    method: Literal["table"] = "table"
    sparsities: Annotated[dict[str, Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]


AnyAllocation = Annotated[Owl | Dlp | Atp | SparsityTable, Field(discriminator="method")]
"""Any allocation in params.yaml."""
