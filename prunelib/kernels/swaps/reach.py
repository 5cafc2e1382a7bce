"""How far the columns of a Gram matrix can lower a change: the part of the bounds on swaps that G alone decides."""

import torch

_STRIP = 256  # rows of a Gram matrix whose reach is computed at once


def reach_of(gram: torch.Tensor, segment: int) -> torch.Tensor:
    """Compute the largest |G_uj| / sqrt(G_jj) over the j other than u of each segment of columns, for each u.

    (inputs, segments) float32, the last segment as long as what is left.
    """
    inputs, norm = len(gram), gram.diagonal().sqrt()
    segments = -(-inputs // segment)
    reach, divisor = gram.new_empty(inputs, segments), torch.where(norm > 0, norm, 1)
    padded = gram.new_zeros(min(_STRIP, inputs), segments * segment)
    for start in range(0, inputs, _STRIP):
        strip = gram[start : start + _STRIP]
        # (strip, inputs); a dead j has G_uj = 0, so that any divisor but 0 will do.
        shares = torch.abs(strip, out=padded[: len(strip), :inputs]).div_(divisor)
        shares.diagonal(start).zero_()
        reach[start : start + _STRIP] = padded[: len(strip)].view(len(strip), segments, segment).amax(dim=2)
    return reach
