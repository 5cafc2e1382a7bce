"""A pattern of one's own: the groups that it divides a matrix into, and how many weights each keeps.

    python examples/write_a_pattern.py

Every row keeps a multiple of `multiple` weights, for kernels that read kept weights in vectors. To use it in
params.yaml, move it to prunelib/masks/patterns.py and add it to `AnyPattern` and `EXAMPLES` there; `prunelib methods`
then lists the methods that support it. A pattern whose groups are a fixed number of columns also states
`column_groups`, as `NOfM` does.

Prints:

    60% per row, by 8: 24 of 64 weights of each row kept
    error 3.938e+07 by Wanda, 2.485e+07 after swaps
"""

from fractions import Fraction
from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib import gram_matrix, pruning_error, select, sparseswaps, wanda
from prunelib.masks.patterns import Groups, Pattern


class PerRowAligned(Pattern):
    """Keep the largest multiple of ``multiple`` weights of every row that leaves at least ``sparsity`` pruned."""

    kind: Literal["per_row_aligned"] = "per_row_aligned"
    sparsity: Annotated[float, Field(gt=0, lt=1)]
    multiple: Annotated[int, Field(ge=1)] = 8

    @property
    def label(self) -> str:
        """The pattern in its text form."""
        return f"{100 * self.sparsity:g}% per row, by {self.multiple}"

    @property
    def kept_share(self) -> Fraction:
        """1 - sparsity, before rounding."""
        return 1 - Fraction(str(self.sparsity))

    def groups(self, rows: int, inputs: int) -> Groups:
        """Return the groups of a matrix (rows, inputs): one per row."""
        kept = int(inputs * self.kept_share)
        return Groups(size=inputs, keep=kept - kept % self.multiple)


torch.manual_seed(0)
weight, gram = torch.randn(64, 64), gram_matrix(torch.randn(1000, 64) @ torch.randn(64, 64))
pattern = PerRowAligned(sparsity=0.6)
mask = select(wanda(weight, gram), pattern)
refined = sparseswaps(weight, gram, mask, pattern)
assert (refined.mask.sum(dim=1) == 24).all()  # of 25 that 60% of 64 leave

before, after = (float(pruning_error(weight, gram, each)) for each in (mask, refined.mask))
print(f"{pattern.label}: {int(refined.mask[0].sum())} of 64 weights of each row kept")
print(f"error {before:.4g} by Wanda, {after:.4g} after swaps")
