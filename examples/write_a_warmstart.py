"""A warm start of one's own: what a module in prunelib/warmstarts/ needs, and how it is tried on a layer.

    python examples/write_a_warmstart.py

Its score lies between magnitude (exponent 0) and Wanda (exponent 1). Copied to prunelib/warmstarts/tempered.py it is
found by its name: in params.yaml, `prunelib prune --warmstart tempered`, and the table of `prunelib methods`.

Prints:

    exponent 0.0: error 3.532e+05
    exponent 0.5: error 2.379e+05
    exponent 1.0: error 2.122e+05
"""

from typing import Annotated, Literal

import torch
from pydantic import Field

from prunelib.methods.contract import MethodSettings, WarmStart


class Tempered(MethodSettings):
    """Settings of the score; each is a key in params.yaml, checked before any work.

    Attributes
    ----------
    exponent
        Power of the norm of the input.
    """

    method: Literal["tempered"] = "tempered"
    exponent: Annotated[float, Field(ge=0, le=2)] = 0.5


DEFAULT = Tempered()


def tempered(weight: torch.Tensor, gram: torch.Tensor, settings: Tempered = DEFAULT) -> torch.Tensor:
    """Return |W_ij| G_jj^(exponent / 2), (rows, inputs) float32; in each group the highest scores are kept."""
    return weight.float().abs() * gram.diagonal().float() ** (settings.exponent / 2)


METHOD = WarmStart(settings=Tempered, saliency=tempered, summary="weight times a power of the norm of its input")


if __name__ == "__main__":
    from prunelib import NOfM, gram_matrix, pruning_error, select

    torch.manual_seed(0)
    inputs = torch.randn(1000, 128) * torch.rand(128)  # (tokens, inputs), of unequal size
    weight, gram = torch.randn(64, 128), gram_matrix(inputs)
    for exponent in (0.0, 0.5, 1.0):
        mask = select(tempered(weight, gram, Tempered(exponent=exponent)), NOfM(keep=2, group=4))
        print(f"exponent {exponent}: error {float(pruning_error(weight, gram, mask)):.4g}")
